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
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._response import DispatchResponse

__all__ = [
    "PUBLIC",
    "ConfigurationError",
    "DispatchError",
    "DispatchUnknownError",
    "ErrorCategory",
    "MissingDependencyError",
    "RegistrationError",
    "RejectedError",
    "nearest",
]


PUBLIC = "dispatchers"
"""Where users import the exceptions from, and what a traceback says."""


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
    """An error nobody classified: an adapter's, or ours."""


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


class DispatchError(Exception):
    """A dispatch was not `ok`, and the caller asked for an exception.

    Attributes:
        response: The response it was raised from.
    """

    __module__ = PUBLIC

    def __init__(self, response: DispatchResponse) -> None:
        self.response = response
        super().__init__(response)

    def __str__(self) -> str:
        error = self.response.error
        what = f"{error.category}: {error.message}" if error else "no error"
        return f"dispatch through {self.response.dispatcher!r} was {self.response.status}: {what}"


class DispatchUnknownError(DispatchError):
    """It may or may not have been handed over; repeat only where duplicates are recognised."""

    __module__ = PUBLIC


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

    def __str__(self) -> str:
        return self.message


LONGEST_NAME = 255
"""Characters of an alias or a key; the search for the nearest one takes their square of time."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the known names, or nothing: the tail of a message."""
    import difflib

    names = sorted(known)
    comparable = names if len(name) <= LONGEST_NAME else []
    if close := difflib.get_close_matches(name, comparable, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(map(repr, names))}" if names else ""
