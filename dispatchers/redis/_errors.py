"""What redis-py's exceptions mean."""

from __future__ import annotations

import redis.exceptions as raised

from dispatchers._errors import ErrorCategory

from ._bounds import is_before_sending

__all__ = ["category_of", "is_certainly_unsent"]

KINDS: tuple[tuple[type[BaseException], ErrorCategory], ...] = (
    (raised.AuthenticationError, ErrorCategory.AUTHENTICATION),
    (raised.AuthorizationError, ErrorCategory.AUTHENTICATION),
    (raised.NoPermissionError, ErrorCategory.PERMISSION),
    (raised.OutOfMemoryError, ErrorCategory.CAPACITY),
    (raised.MaxConnectionsError, ErrorCategory.CAPACITY),
    (raised.ReadOnlyError, ErrorCategory.UNAVAILABLE),
    (raised.BusyLoadingError, ErrorCategory.UNAVAILABLE),
    (raised.TimeoutError, ErrorCategory.TIMEOUT),
    (raised.ConnectionError, ErrorCategory.UNAVAILABLE),
    (raised.DataError, ErrorCategory.INVALID),
    (raised.ResponseError, ErrorCategory.UNAVAILABLE),
    (TimeoutError, ErrorCategory.TIMEOUT),  # of `bounded`, while connecting
)
"""The first that fits."""
REFUSALS = (
    raised.AuthenticationError,
    raised.AuthorizationError,
    raised.NoPermissionError,
    raised.OutOfMemoryError,
    raised.MaxConnectionsError,
    raised.ReadOnlyError,
    raised.BusyLoadingError,
    raised.DataError,
    raised.ResponseError,
)
"""The server answered with them in place of doing it, or they came before anything was sent."""


def category_of(exc: BaseException) -> ErrorCategory | None:
    """The category of what redis-py raised; None for what nobody knows here."""
    for kind, category in KINDS:
        if isinstance(exc, kind):
            return category
    return None


def is_certainly_unsent(exc: BaseException) -> bool:
    """Whether the server cannot have done it although this was raised."""
    return is_before_sending(exc) or isinstance(exc, REFUSALS)
