"""Classification of failures: their kind, and the worth of a retry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeVar, overload

from dispatchers._errors import is_a
from dispatchers._models.http_status import CLIENTS, Answer, by_http_status

Permanence = Literal["permanent", "transient"]


Kind = Literal["exception", "timeout", "connection", "dns", "tls", "certificate"]


KINDS: dict[str, Kind] = {
    "ssl.SSLCertVerificationError": "certificate",
    "ssl.SSLError": "tls",
    "socket.gaierror": "dns",
    "builtins.TimeoutError": "timeout",
    "builtins.ConnectionError": "connection",
}
"""By dotted name, so that a process that only dispatches need not import their modules."""


PROGRAMMING_ERRORS: tuple[type[Exception], ...] = (
    AssertionError,
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
)
"""Permanent by default: the same code fails in the same way again."""


ENDS = (BaseException, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Python's own ways to end something else than a run."""


KILLED = "greenlet.GreenletExit"
"""By name, so that greenlet need not be imported: gevent ends a greenlet with it."""


E = TypeVar("E", bound=BaseException)

_classes: dict[type[BaseException], Permanence | Callable[[Any], Answer]] = {}
_classes.update(dict.fromkeys(PROGRAMMING_ERRORS, "permanent"))


class Classification(NamedTuple):
    """The permanence of a failure, and the earliest time of another attempt."""

    permanence: Permanence
    after: float | None = None
    """Seconds, where the failure itself says so."""


TRANSIENT = Classification("transient")


@overload
def classify(exception: type[BaseException], permanence: Permanence) -> None: ...
@overload
def classify(exception: type[E], permanence: Callable[[E], Answer]) -> None: ...
def classify(
    exception: type[BaseException], permanence: Permanence | Callable[[Any], Answer]
) -> None:
    """Say whether a task that fails with `exception`, or a subclass, is worth another attempt.

    The nearest class wins: `classify(OSError, "permanent")` and
    `classify(ConnectionError, "transient")` live side by side.

    Args:
        exception: The class. One that is no `Exception`, by which a worker interrupts its runs, is
            a failure of the run from now on, where it would end the worker otherwise.

        permanence: `"permanent"` ends the work at once, `"transient"` lets it be retried. A
            function is called with the exception and returns one of the two, or seconds (a number
            or a timedelta) before which another attempt does not help, or None, which leaves it to
            the next class.

    Raises:
        TypeError: `exception` is not an exception class, or `permanence` is none of these.
    """
    given: object = exception
    if not (isinstance(given, type) and issubclass(given, BaseException)) or given in ENDS:
        raise TypeError(f"classify takes an exception class, not {given!r}")
    if permanence not in ("permanent", "transient") and not callable(permanence):
        raise TypeError(f'{permanence!r} is neither "permanent" nor "transient", nor a function')
    _classes[exception] = permanence


def is_interruption(exc: BaseException) -> bool:
    """Tell whether `exc` is an interruption classified as a failure."""
    return not is_a(exc, Exception) and nearest_class(type(exc), _classes) is not None


def is_end(exc: BaseException) -> bool:
    """Tell whether `exc` ends a process, thread or greenlet rather than a run in it."""
    if issubclass(type(exc), GeneratorExit | KeyboardInterrupt | SystemExit):
        return True
    # By name along the ancestry, so that subclasses count and nothing is imported.
    names = (f"{base.__module__}.{base.__qualname__}" for base in type(exc).__mro__)
    return KILLED in names


def is_of_the_runner(exc: BaseException) -> bool:
    """Tell whether `exc` was raised by what runs the code, and says nothing of the code itself.

    An interruption, or the end of the process, thread or greenlet; also in a group of exceptions.
    """
    if is_a(exc, Exception):  # most of all
        return False
    if is_a(exc, BaseExceptionGroup):
        return any(map(is_of_the_runner, exc.exceptions))
    return is_interruption(exc) or (is_end(exc) and not is_a(exc, GeneratorExit))


def permanence(exc: BaseException) -> Permanence:
    """Return whether another attempt may help."""
    return classification(exc).permanence


def classification(exc: BaseException) -> Classification:
    """Return what was said of the nearest class of `exc`; transient where nothing was.

    Raises:
        Exception: Whatever a function given to `classify` raises.
    """
    for base in type(exc).__mro__:
        said = _classes.get(base)
        # After what the application has said of that class: its own word goes first.
        if said is None and f"{base.__module__}.{base.__qualname__}" in CLIENTS:
            said = by_http_status
        answer = said(exc) if callable(said) else said
        if answer is not None:
            return _classified(answer)
    return TRANSIENT


def _classified(answer: object) -> Classification:
    if answer in ("permanent", "transient"):
        return Classification(answer)
    seconds = answer.total_seconds() if isinstance(answer, timedelta) else answer
    # True is an int, and a likely mistake for "transient".
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a function given to classify returned {type(answer).__name__}")
    if not math.isfinite(seconds):
        raise ValueError("a function given to classify returned no finite number of seconds")
    # A moment that has passed asks for no wait, and is not an error.
    return Classification("transient", max(0.0, float(seconds)))


def nearest_class(
    kind: type[BaseException], known: Iterable[type[BaseException]]
) -> type[BaseException] | None:
    """Return the class of `known` nearest to `kind` in its ancestry."""
    wanted = set(known)
    return next((base for base in kind.__mro__ if base in wanted), None)


def failure_kind(exc: BaseException) -> Kind:
    """Return the kind of a failure, looked for in its causes too."""
    seen: set[int] = set()
    current: BaseException | None = exc
    # An exception can be its own cause, by way of others.
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if kind := own_kind(current):
            return kind
        # Clients wrap a socket's error in their own, often without `from`.
        current = current.__cause__ or current.__context__
    return "exception"


def own_kind(exc: BaseException) -> Kind | None:
    """Return the kind of `exc` itself, by its nearest known class."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in type(exc).__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)
