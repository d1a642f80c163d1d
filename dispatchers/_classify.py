"""What kind of failure an exception is, and whether trying again may help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

__all__ = [
    "Kind",
    "classify",
    "failure_kind",
    "is_interruption",
    "nearest_class",
    "own_kind",
    "permanence",
]

Permanence = Literal["permanent", "transient"]
Kind = Literal["exception", "timeout", "connection", "dns", "tls", "certificate"]

KINDS: dict[str, Kind] = {
    "ssl.SSLCertVerificationError": "certificate",
    "ssl.SSLError": "tls",
    "socket.gaierror": "dns",
    "builtins.TimeoutError": "timeout",
    "builtins.ConnectionError": "connection",
}
"""By dotted name: who raises them has imported their modules; whoever only dispatches need not."""

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
_classes: dict[type[BaseException], Permanence] = dict.fromkeys(PROGRAMMING_ERRORS, "permanent")


def classify(exception: type[BaseException], permanence: Permanence) -> None:
    """Say whether a task that fails with `exception`, or a subclass, is worth another attempt.

    The nearest class wins: `classify(OSError, "permanent")` and
    `classify(ConnectionError, "transient")` live side by side.

    Args:
        exception: The class. One that is no `Exception`, by which a worker interrupts its runs, is
            a failure of the run from now on, where it would end the worker otherwise.

        permanence: `"permanent"` ends the work at once, `"transient"` lets it be retried.

    Raises:
        TypeError: `exception` is no exception class, or `permanence` neither word.
    """
    given: object = exception
    if not (isinstance(given, type) and issubclass(given, BaseException)) or given in ENDS:
        raise TypeError(f"classify takes an exception class, not {given!r}")
    if permanence not in ("permanent", "transient"):
        raise TypeError(f'{permanence!r} is neither "permanent" nor "transient"')
    _classes[exception] = permanence


def is_interruption(exc: BaseException) -> bool:
    """Whether `exc` is no `Exception`, and was said to be a failure all the same."""
    return not isinstance(exc, Exception) and nearest_class(type(exc), _classes) is not None


def permanence(exc: BaseException) -> Permanence:
    """What was said of the nearest class of `exc`; transient where nothing was."""
    known = nearest_class(type(exc), _classes)
    return "transient" if known is None else _classes[known]


def nearest_class(
    kind: type[BaseException], known: Iterable[type[BaseException]]
) -> type[BaseException] | None:
    """The class among `known` that comes first in the ancestry of `kind`."""
    wanted = set(known)
    return next((base for base in kind.__mro__ if base in wanted), None)


def failure_kind(exc: BaseException) -> Kind:
    """What went wrong by type, looked for in the causes too: clients wrap what they catch."""
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if kind := own_kind(current):
            return kind
        current = current.__cause__ or current.__context__
    return "exception"


def own_kind(exc: BaseException) -> Kind | None:
    """What went wrong by the nearest known class of `exc` itself."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in type(exc).__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)
