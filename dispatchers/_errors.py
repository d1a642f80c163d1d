"""Categories of failure, and the exceptions that leave the library.

::

    Exception
     +-- DispatchError            raise_for_error(): the response says why
     |    +-- DispatchUnknownError    it may or may not have been handed over
     +-- ConfigurationError       constructors, configure, get_dispatcher, check
     |    +-- MissingDependencyError  a backend's library is not installed
     |    +-- RegistrationError       register, entry points
     +-- DeclarationError         @task, @declare: the definition cannot work
     +-- PayloadError             task.request(): arguments that do not fit
     +-- RejectedError            raised inside an adapter: certainly not handed over
     +-- StepError                raised in a workflow: a step failed for good
     +-- NotDurableError          raised in a workflow: it awaits what is not recorded
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from importlib import import_module
from operator import attrgetter
from typing import TypeGuard, TypeVar

PUBLIC = "dispatchers"
"""Where users import public names from; what a traceback, a repr and a pickle say."""

C = TypeVar("C", bound=type)
E = TypeVar("E", bound=BaseException)


def public(cls: C) -> C:
    """Place a class where users import it, so that a pickle names no private module.

    Once it is made: pydantic looks the names in annotations up in the module it is made in.
    """
    cls.__defined_in__ = cls.__module__  # type: ignore[attr-defined] # for its source
    cls.__module__ = PUBLIC
    return cls


@public
class ErrorCategory(StrEnum):
    """Why a dispatch is not `ok`; callers branch on this, people read the message."""

    INVALID = "invalid"
    """The arguments or options do not fit the task."""
    TOO_LARGE = "too_large"
    """The envelope exceeds what the backend takes."""
    UNSUPPORTED = "unsupported"
    """The backend cannot do what the request needs."""
    CONFIGURATION = "configuration"
    """The dispatcher is not configured, or wrongly."""
    MISSING_DEPENDENCY = "missing_dependency"
    """The backend's library is not installed."""
    UNAVAILABLE = "unavailable"
    """The backend could not be reached or is down."""
    TIMEOUT = "timeout"
    """The deadline for handing over passed."""
    AUTHENTICATION = "authentication"
    """The backend did not accept who we are."""
    PERMISSION = "permission"
    """The backend knows who we are and does not allow it."""
    NOT_FOUND = "not_found"
    """The queue, or what stands for it, does not exist."""
    THROTTLED = "throttled"
    """The backend asks for fewer requests."""
    CAPACITY = "capacity"
    """No room: a full queue, a full disk, too many abandoned calls."""
    CIRCUIT_OPEN = "circuit_open"
    """The breaker is open; nothing was tried."""
    CLOSED = "closed"
    """The dispatcher was closed."""
    CONFLICT = "conflict"
    """The backend holds something else under the same identifier."""
    HANDLER = "handler"
    """It ran here, and the task failed."""
    INTERNAL = "internal"
    """An unclassified error of an adapter or of this library."""


RETRYABLE = frozenset(
    {
        ErrorCategory.UNAVAILABLE,
        ErrorCategory.TIMEOUT,
        ErrorCategory.THROTTLED,
        ErrorCategory.CAPACITY,
        ErrorCategory.CIRCUIT_OPEN,
    }
)
"""Repeating a request that was certainly not handed over may help."""


class ConfigurationError(ValueError):
    """A setting is missing, unknown or wrong; the message names it, its place and the cure."""

    __module__ = PUBLIC


class MissingDependencyError(ConfigurationError, ImportError):
    """A backend's library is not installed; the message has the command that installs it."""

    __module__ = PUBLIC


class RegistrationError(ConfigurationError):
    """A backend cannot be registered; the message names the class, its owner and the cure."""

    __module__ = PUBLIC


class RejectedError(Exception):
    """Raised by an adapter's `_send`: the work was certainly not handed over.

    Args:
        category: What a caller branches on.

        message: What happened, to which object, what to do. Never a payload or a secret.

        retryable: Whether repeating may help; by default what the category suggests.
    """

    __module__ = PUBLIC

    def __init__(
        self, category: ErrorCategory, message: str, *, retryable: bool | None = None
    ) -> None:
        super().__init__(category, message)
        self.category = category
        self.message = message
        self.retryable = category in RETRYABLE if retryable is None else retryable

    @staticmethod
    def because(
        exc: Exception, category: ErrorCategory | None = None, *, retryable: bool | None = None
    ) -> RejectedError:
        """Return the refusal for a client's exception, which is kept as its cause.

        The words are the exception's class and what it says; of one without a category, the place
        where it was raised. The dispatcher strikes out its secrets.

        Args:
            exc: Raised before anything was handed over; a `RejectedError` is returned as it is.

            category: None takes that of Python's own exceptions, and else `internal`.

            retryable: Whether repeating may help; by default what the category suggests.
        """
        if isinstance(exc, RejectedError):
            return exc
        # By name: the classes of exceptions are known above this module.
        mapping = import_module("dispatchers._dispatch.error_mapping")
        found, words = mapping.described(exc, category)
        error = RejectedError(found, words, retryable=retryable)
        error.__cause__ = exc
        return error

    def __str__(self) -> str:
        return self.message


class NotDurableError(RuntimeError):
    """Code of a workflow used what cannot be recorded; the message has the place and the cure."""

    __module__ = PUBLIC


class StepError(Exception):
    """A step of a workflow failed for good: after its own attempts, or beyond repair.

    `except StepError.of(CardDeclined)` catches those that failed with this exception.

    Args:
        message: The words of the exception that it failed with.

        category: A value of `ErrorCategory` where one fits: `handler`, `invalid`, `timeout` ...

        exception_type: The dotted name of the exception's class, where there was one.

        attempts: How often it was tried.

        step: The step, for people: `shop.charge (3)`.
    """

    __module__ = PUBLIC

    def __init__(
        self,
        message: str,
        *,
        category: str = ErrorCategory.HANDLER.value,
        exception_type: str | None = None,
        attempts: int = 1,
        step: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.category = category
        self.exception_type = exception_type
        self.attempts = attempts
        self.step = step

    @staticmethod
    def of(kind: type[BaseException] | str) -> type[StepError]:
        """Return the class of the failures with one exception.

        It matches by the recorded name: not what derives from the exception.

        Args:
            kind: The exception's class, or its dotted name.
        """
        name = kind if isinstance(kind, str) else class_name(kind)
        found = _step_errors.get(name)
        # `except` asks for real classes: it calls no `__instancecheck__`.
        return found or _step_errors.setdefault(name, _step_error_class(name))

    def __str__(self) -> str:
        step = f"step {self.step}: " if self.step else ""
        kind = f"{self.exception_type}: " if self.exception_type else ""
        return f"{step}{kind}{self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        values = {name: getattr(self, name) for name in ("category", "exception_type", "attempts")}
        return partial(step_error, self.message, **values, step=self.step), ()


_step_errors: dict[str, type[StepError]] = {}
"""Their classes by the dotted name of the exception, which a deployment has few of."""


def _step_error_class(name: str) -> type[StepError]:
    text = f"A step failed with `{name}`."
    return type("StepError", (StepError,), {"__module__": PUBLIC, "__doc__": text})


def step_error(
    message: str, *, category: str, exception_type: str | None, attempts: int, step: str
) -> StepError:
    """Return a failure of the class that `except StepError.of(...)` catches."""
    kind = StepError if exception_type is None else StepError.of(exception_type)
    return kind(
        message, category=category, exception_type=exception_type, attempts=attempts, step=step
    )


def is_a(exc: BaseException, kinds: type[E]) -> TypeGuard[E]:
    """Tell whether an exception is one of a class, without asking the exception itself.

    `isinstance` also reads its `__class__`, which may be a property that raises.
    """
    return issubclass(type(exc), kinds)


class UnreadableError(Exception):
    """Stands for an exception whose own class or attributes raise when looked at."""


def stand_in(exc: BaseException) -> UnreadableError:
    """Return what stands for an exception that cannot be looked at."""
    found = UnreadableError("the exception's own class or attributes raise")
    # The descriptor itself: the exception may hide its traceback, too.
    return found.with_traceback(BaseException.__dict__["__traceback__"].__get__(exc))


def readable(exc: E) -> E | UnreadableError:
    """Return an exception, or what stands for it where it cannot be looked at."""
    try:
        _looked_at(exc)
    except Exception:  # noqa: BLE001 - code of the exception's own
        return stand_in(exc)
    return exc


_looked_at = attrgetter("__class__", "__traceback__")


def class_name(kind: type) -> str:
    """Return the dotted name by which a class is imported."""
    # Users import from public modules: `a.b._c.E` is shown as `a.b.E`.
    module = str(kind.__module__ or "").partition("._")[0]
    return kind.__qualname__ if module in ("", "builtins") else f"{module}.{kind.__qualname__}"


LISTED = 50
"""Names that a message lists; one with thousands would fill the log."""
LONGEST_NAME = 255
"""Characters of an alias or a key; the search for the nearest one takes their square of time."""


def nearest(name: str, known: Iterable[str], *, lists: bool = True) -> str:
    """`; did you mean 'x'?`, or the known names, or nothing: the tail of a message.

    Args:
        name: A name that is not known.

        known: Those that are.

        lists: List the known names where none is near.
    """
    import difflib

    names = sorted(known)
    # By their letters alone: `RQ` has none in common with `rq`.
    folded = {each.casefold(): each for each in reversed(names)}
    comparable = folded if len(name) <= LONGEST_NAME else ()
    if close := difflib.get_close_matches(name.casefold(), comparable, n=1, cutoff=0.6):
        return f"; did you mean {folded[close[0]]!r}?"
    if not (names and lists):
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; known are {', '.join(map(repr, names[:LISTED]))}{more}"
