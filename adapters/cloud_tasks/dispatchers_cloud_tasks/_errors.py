"""Categories of the client's exceptions."""

from __future__ import annotations

from google.api_core import exceptions as api
from google.auth import exceptions as auth

from dispatchers import ConfigurationError, ErrorCategory, RejectedError

CATEGORIES: dict[type[Exception], ErrorCategory] = {
    api.FailedPrecondition: ErrorCategory.CONFLICT,
    api.NotFound: ErrorCategory.NOT_FOUND,
    api.Forbidden: ErrorCategory.PERMISSION,
    api.Unauthorized: ErrorCategory.AUTHENTICATION,
    api.TooManyRequests: ErrorCategory.THROTTLED,
    api.MethodNotImplemented: ErrorCategory.UNSUPPORTED,
    api.MethodNotAllowed: ErrorCategory.UNSUPPORTED,
    api.GatewayTimeout: ErrorCategory.TIMEOUT,
    api.RetryError: ErrorCategory.TIMEOUT,
    api.Aborted: ErrorCategory.UNAVAILABLE,
    api.Cancelled: ErrorCategory.UNAVAILABLE,
    api.PreconditionFailed: ErrorCategory.CONFLICT,
    api.Conflict: ErrorCategory.CONFLICT,
    # The rest of what the service says of a request.
    api.ClientError: ErrorCategory.INVALID,
    api.Redirection: ErrorCategory.UNAVAILABLE,
    # The rest of the service's own failures: 500, 502, 503, Internal, Unknown, DataLoss.
    api.ServerError: ErrorCategory.UNAVAILABLE,
    api.GoogleAPIError: ErrorCategory.INTERNAL,
    auth.TransportError: ErrorCategory.UNAVAILABLE,
    auth.ResponseError: ErrorCategory.UNAVAILABLE,
    auth.TimeoutError: ErrorCategory.TIMEOUT,
    auth.GoogleAuthError: ErrorCategory.AUTHENTICATION,
}
"""By the client's classes, https://googleapis.dev/python/google-api-core/latest/exceptions.html.

Those of gRPC's codes derive from those of HTTP statuses, which stand for both.
"""
UNSENT: tuple[type[Exception], ...] = (
    api.BadRequest,  # InvalidArgument, FailedPrecondition, OutOfRange
    api.NotFound,
    api.Forbidden,
    api.Unauthorized,
    api.TooManyRequests,
    api.MethodNotImplemented,
    api.MethodNotAllowed,
    api.LengthRequired,
    api.PreconditionFailed,
    auth.GoogleAuthError,
)
"""Errors with which the service answers a call that it has not carried out."""


def category_of(exc: Exception) -> ErrorCategory | None:
    """Return the category of the client's exception; None for Python's own."""
    # The nearest class counts: a subclass that the table lacks is classified by its base.
    found = (CATEGORIES[kind] for kind in type(exc).__mro__ if kind in CATEGORIES)
    return next(found, None)


def before_contact(exc: Exception) -> RejectedError:
    """Return the error for what failed while the client was made: nothing was sent."""
    if isinstance(exc, RejectedError):
        return exc
    kinds = [(TimeoutError, ErrorCategory.TIMEOUT), (OSError, ErrorCategory.UNAVAILABLE)]
    found = category_of(exc) or next((c for kind, c in kinds if isinstance(exc, kind)), None)
    # Texts of other exceptions may quote what was given, a credential among it.
    words = str(exc) if isinstance(exc, ConfigurationError | auth.GoogleAuthError) else ""
    return RejectedError(
        found or ErrorCategory.CONFIGURATION,
        f"the client could not be made: {type(exc).__name__}{words and f': {words}'}",
    )


def is_certainly_unsent(exc: Exception) -> bool:
    """Return whether the service has certainly not taken the task."""
    return isinstance(exc, UNSENT)


def is_duplicate(exc: Exception) -> bool:
    """Return whether a task of that name exists or existed: over REST only a `Conflict`."""
    # `Aborted` is a subclass of `Conflict`, and says that nothing exists yet.
    return isinstance(exc, api.Conflict) and not isinstance(exc, api.Aborted)


def refuses_batches(exc: Exception) -> bool:
    """Return whether the service has no batch call, or not for this caller."""
    return isinstance(exc, api.MethodNotImplemented | api.MethodNotAllowed)
