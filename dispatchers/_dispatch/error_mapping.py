"""Mapping of an exception to status, category and words without secrets."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import NamedTuple

from pydantic import ValidationError

from dispatchers._errors import (
    RETRYABLE,
    ConfigurationError,
    ErrorCategory,
    MissingDependencyError,
    class_name,
)
from dispatchers._errors import RejectedError as Rejected
from dispatchers._models.base import build
from dispatchers._models.failures import Kind, own_kind
from dispatchers._models.redaction import without_secrets
from dispatchers._models.response import DispatchFailure, DispatchStatus
from dispatchers._payload.errors import PayloadError
from dispatchers._runtime.guard import GuardClosedError, GuardFullError, GuardTimeoutError
from dispatchers._runtime.resolver import ConnectTimeoutError


class AnswerError(TypeError):
    """An adapter's answer makes no sense; the work may be handed over."""


LONGEST = 300
"""Characters of a client's own words that are worth repeating."""


OURS = 4000
"""Characters of our own words on a configuration: all that is wrong with it, at once."""


# The categories that say the backend itself is ill; all others are the caller's or permanent.
COUNTED = frozenset({ErrorCategory.UNAVAILABLE, ErrorCategory.TIMEOUT})

FINAL = frozenset(
    {
        ErrorCategory.INVALID,
        ErrorCategory.TOO_LARGE,
        ErrorCategory.UNSUPPORTED,
        ErrorCategory.CONFLICT,
        ErrorCategory.HANDLER,
    }
)
"""What is rejected for these is never taken: to dispatch it again cannot help."""


EXHAUSTED = frozenset({"RecursionError", "MemoryError"})
"""Exceptions that say nothing of a backend: this process lacks stack or memory."""


GENERIC: tuple[tuple[type[BaseException], ErrorCategory], ...] = (
    (MissingDependencyError, ErrorCategory.MISSING_DEPENDENCY),
    (ConfigurationError, ErrorCategory.CONFIGURATION),
    (ImportError, ErrorCategory.MISSING_DEPENDENCY),
    (PermissionError, ErrorCategory.PERMISSION),
    (FileNotFoundError, ErrorCategory.NOT_FOUND),
    (MemoryError, ErrorCategory.CAPACITY),
    (RecursionError, ErrorCategory.CAPACITY),
)


OF_KIND: dict[Kind, ErrorCategory] = {
    "certificate": ErrorCategory.AUTHENTICATION,
    "tls": ErrorCategory.AUTHENTICATION,
    "dns": ErrorCategory.UNAVAILABLE,
    "timeout": ErrorCategory.TIMEOUT,
    "connection": ErrorCategory.UNAVAILABLE,
}


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})


def category_of(exc: BaseException) -> ErrorCategory:
    """Return the category of an exception by its type alone."""
    number: object = exc.errno if isinstance(exc, OSError) else None
    # By number: Python has no exception class for a full disk or descriptor table.
    if isinstance(number, int) and number in FULL:
        return ErrorCategory.CAPACITY
    finders: object = sys.meta_path
    if isinstance(exc, ImportError) and finders is None:  # the interpreter is going down
        return ErrorCategory.CLOSED
    if kind := own_kind(exc):
        return OF_KIND[kind]
    found = (category for base, category in GENERIC if isinstance(exc, base))
    return next(found, ErrorCategory.INTERNAL)


Mapped = tuple[DispatchStatus, DispatchFailure]


class ErrorMapping(NamedTuple):
    """Facts of a dispatcher that the mapping of an exception needs."""

    name: str
    alias: str
    secrets: tuple[str, ...]
    category: Callable[[Exception], ErrorCategory | None]
    maybe_sent: Callable[[Exception], bool]


def is_final(status: DispatchStatus, error: DispatchFailure | None) -> bool:
    """Tell whether a request was taken, or can never be: false where it may be dispatched again."""
    return error is None or (status is not DispatchStatus.UNKNOWN and error.category in FINAL)


def map_error(mapping: ErrorMapping, exc: Exception, *, contacted: bool) -> Mapped:
    """Map an exception of the dispatch path to status and failure; never raises."""
    try:
        return _mapped(mapping, exc, contacted=contacted)
    except Exception:  # noqa: BLE001 - C1: reading an exception's attributes runs foreign code
        # Only what certainly was not handed over may be called rejected (C3).
        status = DispatchStatus.UNKNOWN if contacted else DispatchStatus.REJECTED
        message = "dispatch failed with an exception that could not be looked at"
        return status, failure(ErrorCategory.INTERNAL, message, None)


def _mapped(mapping: ErrorMapping, exc: Exception, *, contacted: bool) -> Mapped:
    if isinstance(exc, Rejected):
        return _refused(exc, mapping.secrets)
    # Nothing left this process, so the adapter, whose client was not used, is not asked.
    if not contacted:
        return without_contact(exc)
    if isinstance(exc, AnswerError):
        return DispatchStatus.UNKNOWN, failure(ErrorCategory.INTERNAL, str(exc), exc)
    if isinstance(exc, GuardFullError):
        return _not_begun(mapping, exc)
    if isinstance(exc, GuardTimeoutError):
        return _overdue(mapping, exc)
    return _from_adapter(mapping, exc)


def without_contact(exc: Exception) -> Mapped:
    """Status and failure for an exception that was raised before any backend was contacted."""
    if isinstance(exc, Rejected):
        return _refused(exc, ())
    if isinstance(exc, PayloadError | ValidationError):
        return _rejected(ErrorCategory.INVALID, safe_text(exc, ()), exc)
    if isinstance(exc, ConfigurationError):
        return _rejected(category_of(exc), safe_text(exc, (), OURS), exc)
    message = f"dispatch failed before contact: {type_name(exc)} at {place_of(exc)}"
    return _rejected(category_of(exc), message, exc)


def before_contact(exc: Exception) -> Rejected:
    """Return the error for what failed before contact: certainly not handed over."""
    if isinstance(exc, Rejected):
        return exc
    error = without_contact(exc)[1]
    rejected = Rejected(error.category, error.message, retryable=error.retryable)
    rejected.__cause__ = exc
    return rejected


def out_of_time() -> Rejected:
    """Return the error for what is not tried, as the time of those before it was all there was."""
    return Rejected(ErrorCategory.TIMEOUT, "the deadline passed before its turn")


def untried() -> Rejected:
    """Return the error for what is not tried, as something before it failed."""
    return Rejected(ErrorCategory.UNAVAILABLE, "the batch failed before its turn")


def _refused(exc: Rejected, secrets: tuple[str, ...]) -> Mapped:
    """Map a `RejectedError`, whatever its attributes hold."""
    # An adapter may have made or changed the error in any way; its attributes are not trusted.
    given: object = getattr(exc, "category", None)
    category = given if isinstance(given, ErrorCategory) else ErrorCategory.INTERNAL
    # Clients repeat their connection URL in messages, password included.
    text = _cut(without_secrets(str(getattr(exc, "message", "")), secrets), OURS)
    again = bool(getattr(exc, "retryable", False))
    return _rejected(category, text, exc.__cause__, retryable=again)


def _rejected(
    category: ErrorCategory,
    message: str,
    exc: BaseException | None,
    *,
    retryable: bool | None = None,
) -> Mapped:
    again = category in RETRYABLE if retryable is None else retryable
    return DispatchStatus.REJECTED, failure(category, message, exc, retryable=again)


def _not_begun(mapping: ErrorMapping, exc: GuardFullError) -> Mapped:
    if isinstance(exc, GuardClosedError):
        return _rejected(ErrorCategory.CLOSED, f"dispatcher {mapping.alias!r} was closed", exc)
    return _rejected(ErrorCategory.CAPACITY, "too many calls are stuck in the client", exc)


def _overdue(mapping: ErrorMapping, exc: GuardTimeoutError) -> Mapped:
    message = f"backend {mapping.name!r} did not answer within the deadline"
    if not exc.started:
        return _rejected(ErrorCategory.TIMEOUT, message, exc)
    return DispatchStatus.UNKNOWN, failure(ErrorCategory.TIMEOUT, message, exc)


def _from_adapter(mapping: ErrorMapping, exc: Exception) -> Mapped:
    category = _asked_category(mapping, exc) or category_of(exc)
    message = f"backend {mapping.name!r}: {_words_of(exc, category, mapping.secrets)}"
    if is_in_doubt(exc, mapping.maybe_sent):
        return DispatchStatus.UNKNOWN, failure(category, message, exc)
    return _rejected(category, message, exc)


def described(exc: Exception, category: ErrorCategory | None) -> tuple[ErrorCategory, str]:
    """Return category and words of an exception, whose secrets are struck out later; never raises.

    The words are whole: a secret that is cut in two would not be found.
    """
    try:
        found = category or category_of(exc)
        return found, _words_of(exc, found, (), sys.maxsize)
    except Exception:  # noqa: BLE001 - C1: reading an exception's attributes runs foreign code
        return category or ErrorCategory.INTERNAL, type_name(exc)


def _words_of(
    exc: Exception, category: ErrorCategory, secrets: tuple[str, ...], longest: int = LONGEST
) -> str:
    """Return an exception's class, and its words where its category says that it is a client's."""
    if category is ErrorCategory.INTERNAL:
        place = place_of(exc)  # its words may quote anything
        return f"{type_name(exc)} at {place}" if place else type_name(exc)
    text = safe_text(exc, secrets, longest)
    return f"{type_name(exc)}: {text}" if text else type_name(exc)


def _asked_category(mapping: ErrorMapping, exc: Exception) -> ErrorCategory | None:
    try:
        given: object = mapping.category(exc)
    except Exception:  # noqa: BLE001 - a broken adapter must not raise (C1)
        return None
    return given if isinstance(given, ErrorCategory) else None


def is_in_doubt(exc: Exception, maybe_sent: Callable[[Exception], bool]) -> bool:
    """Tell whether the work may be handed over in spite of `exc`; never raises."""
    # `ConnectTimeoutError` is of `dispatchers.net`, raised while connecting.
    if isinstance(exc, ConnectTimeoutError | Rejected):
        return False
    if isinstance(exc, RecursionError | MemoryError):  # may strike after the work was stored
        return True
    try:
        return bool(maybe_sent(exc))
    except Exception:  # noqa: BLE001 - an adapter that cannot tell leaves it unknown (C3)
        return True


def failure(
    category: ErrorCategory, message: str, exc: BaseException | None, *, retryable: bool = False
) -> DispatchFailure:
    """Make a `DispatchFailure` that names the exception's type."""
    values = {
        "category": category,
        "retryable": retryable,
        "exception_type": None if exc is None else type_name(exc),
        "message": readable(message),
    }
    return build(DispatchFailure, values)  # also while the interpreter shuts down


def counts_against(status: DispatchStatus, error: DispatchFailure) -> bool:
    """Return true for the backend's fault, which a breaker counts; false for the caller's."""
    if error.exception_type in EXHAUSTED:
        return False
    return status is DispatchStatus.UNKNOWN or error.category in COUNTED


def type_name(exc: BaseException) -> str:
    """Return the dotted name by which an exception's class is imported."""
    return class_name(type(exc))


def place_of(exc: BaseException) -> str:
    """File, line and function of the innermost frame: it helps, and quotes no data."""
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return ""
    code = frame.tb_frame.f_code
    return readable(f"{code.co_filename}:{frame.tb_lineno} in {code.co_name}")


def readable(text: str) -> str:
    """Replace lone surrogates, which file names and servers' words may have."""
    return text.encode(errors="replace").decode()


def safe_text(exc: BaseException, secrets: tuple[str, ...], longest: int = LONGEST) -> str:
    """Return an exception's words and notes, short and without secrets; never raises."""
    try:
        text = "; ".join([str(exc), *map(str, getattr(exc, "__notes__", ()))])
    except Exception:  # noqa: BLE001 - a broken __str__ must not raise (C1)
        return ""
    return _cut(readable(without_secrets(text, secrets)), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
