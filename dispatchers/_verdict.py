"""What an exception says about a dispatch: its status, its category, and words without secrets."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ._classify import Kind, own_kind
from ._errors import RETRYABLE, ConfigurationError, ErrorCategory, MissingDependencyError
from ._errors import RejectedError as Rejected
from ._guard import GuardClosedError, GuardFullError, GuardTimeoutError
from ._model import build
from ._payload_errors import PayloadError
from ._response import DispatchFailure, DispatchStatus
from ._secrets import without_secrets

if TYPE_CHECKING:
    from ._contract import BaseDispatcher

__all__ = [
    "AnswerError",
    "category_of",
    "counts_against",
    "failure",
    "place_of",
    "type_name",
    "verdict",
    "without_contact",
]


class AnswerError(TypeError):
    """An adapter returned, but what it returned is no answer: the work may be handed over."""


LONGEST = 300
"""Characters of a client's own words that are worth repeating."""
OURS = 4000
"""Characters of our own words on a configuration: all that is wrong with it, at once."""
COUNTED = frozenset({ErrorCategory.UNAVAILABLE, ErrorCategory.TIMEOUT})

GENERIC: tuple[tuple[type[BaseException], ErrorCategory], ...] = (
    (MissingDependencyError, ErrorCategory.MISSING_DEPENDENCY),
    (ConfigurationError, ErrorCategory.CONFIGURATION),
    (ImportError, ErrorCategory.MISSING_DEPENDENCY),
    (PermissionError, ErrorCategory.PERMISSION),
    (FileNotFoundError, ErrorCategory.NOT_FOUND),
    (MemoryError, ErrorCategory.CAPACITY),
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
    """The category of an exception by its type alone, for what no adapter classified."""
    number: object = exc.errno if isinstance(exc, OSError) else None
    if isinstance(number, int) and number in FULL:
        return ErrorCategory.CAPACITY
    finders: object = sys.meta_path
    if isinstance(exc, ImportError) and finders is None:  # the interpreter is going down
        return ErrorCategory.CLOSED
    if kind := own_kind(exc):
        return OF_KIND[kind]
    found = (category for base, category in GENERIC if isinstance(exc, base))
    return next(found, ErrorCategory.INTERNAL)


def verdict(
    dispatcher: BaseDispatcher, exc: Exception, *, contacted: bool
) -> tuple[DispatchStatus, DispatchFailure]:
    """Status and failure for an exception on the dispatch path, however odd; never raises."""
    try:
        return _judged(dispatcher, exc, contacted=contacted)
    except Exception:  # noqa: BLE001 - C1: an exception's own attributes are anybody's code
        status = DispatchStatus.UNKNOWN if contacted else DispatchStatus.REJECTED
        message = "dispatch failed with an exception that could not be looked at"
        return status, DispatchFailure(category=ErrorCategory.INTERNAL, message=message)


def _judged(
    dispatcher: BaseDispatcher, exc: Exception, *, contacted: bool
) -> tuple[DispatchStatus, DispatchFailure]:
    if isinstance(exc, Rejected):
        return _refused(exc, dispatcher._secrets)
    if not contacted:
        return without_contact(exc)
    if isinstance(exc, AnswerError):
        return DispatchStatus.UNKNOWN, failure(ErrorCategory.INTERNAL, str(exc), exc)
    if isinstance(exc, GuardFullError):
        return _not_begun(dispatcher, exc)
    if isinstance(exc, GuardTimeoutError):
        return _overdue(dispatcher, exc)
    return _from_adapter(dispatcher, exc)


def without_contact(exc: Exception) -> tuple[DispatchStatus, DispatchFailure]:
    """Status and failure for an exception that was raised before any backend was contacted."""
    if isinstance(exc, Rejected):
        return _refused(exc, ())
    if isinstance(exc, PayloadError | ValidationError):
        return _rejected(ErrorCategory.INVALID, safe_text(exc, ()), exc)
    if isinstance(exc, ConfigurationError):
        return _rejected(category_of(exc), safe_text(exc, (), OURS), exc)
    message = f"dispatch failed before contact: {type_name(exc)} at {place_of(exc)}"
    return _rejected(category_of(exc), message, exc)


def _refused(exc: Rejected, secrets: tuple[str, ...]) -> tuple[DispatchStatus, DispatchFailure]:
    """What a `RejectedError` says, as far as it says what it should."""
    given: object = getattr(exc, "category", None)
    category = given if isinstance(given, ErrorCategory) else ErrorCategory.INTERNAL
    text = without_secrets(str(getattr(exc, "message", "")), secrets)
    again = bool(getattr(exc, "retryable", False))
    return _rejected(category, text, exc.__cause__, retryable=again)


def _rejected(
    category: ErrorCategory,
    message: str,
    exc: BaseException | None,
    *,
    retryable: bool | None = None,
) -> tuple[DispatchStatus, DispatchFailure]:
    again = category in RETRYABLE if retryable is None else retryable
    return DispatchStatus.REJECTED, failure(category, message, exc, retryable=again)


def _not_begun(
    dispatcher: BaseDispatcher, exc: GuardFullError
) -> tuple[DispatchStatus, DispatchFailure]:
    if isinstance(exc, GuardClosedError):
        return _rejected(ErrorCategory.CLOSED, f"dispatcher {dispatcher.alias!r} was closed", exc)
    return _rejected(ErrorCategory.CAPACITY, "too many calls are stuck in the client", exc)


def _overdue(
    dispatcher: BaseDispatcher, exc: GuardTimeoutError
) -> tuple[DispatchStatus, DispatchFailure]:
    message = f"backend {dispatcher.name!r} did not answer within the deadline"
    if not exc.started:
        return _rejected(ErrorCategory.TIMEOUT, message, exc)
    return DispatchStatus.UNKNOWN, failure(ErrorCategory.TIMEOUT, message, exc)


def _from_adapter(
    dispatcher: BaseDispatcher, exc: Exception
) -> tuple[DispatchStatus, DispatchFailure]:
    known = _asked_category(dispatcher, exc)
    category = known or category_of(exc)
    message = f"backend {dispatcher.name!r}: {type_name(exc)}"
    if category is ErrorCategory.INTERNAL:
        message += f" at {place_of(exc)}"
    elif text := safe_text(exc, dispatcher._secrets):
        message += f": {text}"
    if _asked_maybe_sent(dispatcher, exc):
        return DispatchStatus.UNKNOWN, failure(category, message, exc)
    return _rejected(category, message, exc)


def _asked_category(dispatcher: BaseDispatcher, exc: Exception) -> ErrorCategory | None:
    try:
        given: object = dispatcher._category(exc)
    except Exception:  # noqa: BLE001 - a broken adapter is no reason to raise (C1)
        return None
    return given if isinstance(given, ErrorCategory) else None


def _asked_maybe_sent(dispatcher: BaseDispatcher, exc: Exception) -> bool:
    try:
        return bool(dispatcher._maybe_sent(exc))
    except Exception:  # noqa: BLE001 - what nobody can tell is unknown (C3)
        return True


def failure(
    category: ErrorCategory, message: str, exc: BaseException | None, *, retryable: bool = False
) -> DispatchFailure:
    """A `DispatchFailure` naming the exception's type."""
    values = {
        "category": category,
        "retryable": retryable,
        "exception_type": None if exc is None else type_name(exc),
        "message": readable(message),
    }
    return build(DispatchFailure, values)  # also while the interpreter shuts down


def counts_against(status: DispatchStatus, category: ErrorCategory) -> bool:
    """Whether the breaker counts it: the backend's fault, never the caller's or the task's."""
    return status is DispatchStatus.UNKNOWN or category in COUNTED


def type_name(exc: BaseException) -> str:
    """The dotted name of an exception's class as one would import it, without `builtins`."""
    kind = type(exc)
    module = str(kind.__module__ or "").partition("._")[0]
    return kind.__qualname__ if module in ("", "builtins") else f"{module}.{kind.__qualname__}"


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
    """The text as UTF-8 can carry it: file names and what servers say may have lone surrogates."""
    return text.encode(errors="replace").decode()


def safe_text(exc: BaseException, secrets: tuple[str, ...], longest: int = LONGEST) -> str:
    """The exception's words, shortened, with every secret struck out; never raises."""
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - a broken __str__ is no reason to raise (C1)
        return ""
    text = readable(without_secrets(text, secrets))
    return text if len(text) <= longest else f"{text[:longest]}..."
