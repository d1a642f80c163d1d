"""What the client's exceptions mean."""

from __future__ import annotations

from google.api_core import exceptions as api
from google.auth import exceptions as auth

from dispatchers import ErrorCategory

__all__ = ["category_of", "is_certainly_unsent", "is_duplicate", "refuses_batches"]

CATEGORIES: dict[type[Exception], ErrorCategory] = {
    api.InvalidArgument: ErrorCategory.INVALID,
    api.OutOfRange: ErrorCategory.INVALID,
    api.FailedPrecondition: ErrorCategory.CONFLICT,
    api.NotFound: ErrorCategory.NOT_FOUND,
    api.PermissionDenied: ErrorCategory.PERMISSION,
    api.Unauthenticated: ErrorCategory.AUTHENTICATION,
    api.ResourceExhausted: ErrorCategory.THROTTLED,
    api.MethodNotImplemented: ErrorCategory.UNSUPPORTED,
    api.DeadlineExceeded: ErrorCategory.TIMEOUT,
    api.RetryError: ErrorCategory.TIMEOUT,
    api.ServiceUnavailable: ErrorCategory.UNAVAILABLE,
    api.Aborted: ErrorCategory.UNAVAILABLE,
    api.Cancelled: ErrorCategory.UNAVAILABLE,
    # What HTTP says instead, over REST.
    api.RequestRangeNotSatisfiable: ErrorCategory.INVALID,
    api.LengthRequired: ErrorCategory.INVALID,
    api.PreconditionFailed: ErrorCategory.CONFLICT,
    api.Conflict: ErrorCategory.CONFLICT,
    api.BadRequest: ErrorCategory.INVALID,
    api.MethodNotAllowed: ErrorCategory.UNSUPPORTED,
    api.Forbidden: ErrorCategory.PERMISSION,
    api.Unauthorized: ErrorCategory.AUTHENTICATION,
    api.TooManyRequests: ErrorCategory.THROTTLED,
    api.GatewayTimeout: ErrorCategory.TIMEOUT,
    api.ClientError: ErrorCategory.INVALID,
    api.Redirection: ErrorCategory.UNAVAILABLE,
    # Whatever else the service says of itself: 500, 502, Internal, Unknown, DataLoss.
    api.ServerError: ErrorCategory.UNAVAILABLE,
    auth.TransportError: ErrorCategory.UNAVAILABLE,
    auth.ResponseError: ErrorCategory.UNAVAILABLE,
    auth.TimeoutError: ErrorCategory.TIMEOUT,
    auth.GoogleAuthError: ErrorCategory.AUTHENTICATION,
}
"""By the client's classes, https://googleapis.dev/python/google-api-core/latest/exceptions.html."""
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
"""What the service answers to a call that it has not carried out."""


def category_of(exc: Exception) -> ErrorCategory | None:
    """The category of the client's exception; None for Python's own."""
    found = (CATEGORIES[kind] for kind in type(exc).__mro__ if kind in CATEGORIES)
    return next(found, None)


def is_certainly_unsent(exc: Exception) -> bool:
    """Whether the service has certainly not taken the task."""
    return isinstance(exc, UNSENT)


def is_duplicate(exc: Exception) -> bool:
    """Whether there is, or was, a task of that name: over REST it is only a `Conflict`."""
    return isinstance(exc, api.Conflict) and not isinstance(exc, api.Aborted)


def refuses_batches(exc: Exception) -> bool:
    """Whether the service has no batch call, or not for this caller."""
    return isinstance(exc, api.MethodNotImplemented | api.MethodNotAllowed)
