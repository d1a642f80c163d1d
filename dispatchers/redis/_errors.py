"""The meaning of redis-py's exceptions; without redis-py none of them can come."""

from __future__ import annotations

import sys
from functools import cache

from dispatchers._errors import ErrorCategory

from ._deadline import is_before_sending

Kinds = tuple[tuple[type[BaseException], ErrorCategory], ...]


@cache
def _kinds() -> tuple[Kinds, tuple[type[BaseException], ...]]:
    """Return the category of each class, the first that fits, and those of a refusal.

    The server answered with a refusal in place of doing it, or it came before sending.
    """
    # Late: the core works without redis-py.
    import redis.exceptions as raised

    refusals: Kinds = (
        (raised.AuthenticationError, ErrorCategory.AUTHENTICATION),
        (raised.AuthorizationError, ErrorCategory.AUTHENTICATION),
        (raised.NoPermissionError, ErrorCategory.PERMISSION),
        (raised.OutOfMemoryError, ErrorCategory.CAPACITY),
        (raised.MaxConnectionsError, ErrorCategory.CAPACITY),
        (raised.ReadOnlyError, ErrorCategory.UNAVAILABLE),
        (raised.BusyLoadingError, ErrorCategory.UNAVAILABLE),
        (raised.DataError, ErrorCategory.INVALID),
    )
    failures: Kinds = (
        (raised.TimeoutError, ErrorCategory.TIMEOUT),
        (raised.ConnectionError, ErrorCategory.UNAVAILABLE),
        (raised.ResponseError, ErrorCategory.UNAVAILABLE),
        (TimeoutError, ErrorCategory.TIMEOUT),  # of `bounded`, while connecting
    )
    return refusals + failures, (*(kind for kind, _ in refusals), raised.ResponseError)


def category_of(exc: BaseException) -> ErrorCategory | None:
    """Return the category of what redis-py raised; None for what is not known here."""
    if sys.modules.get("redis") is None:
        return None
    return next((category for kind, category in _kinds()[0] if isinstance(exc, kind)), None)


def is_certainly_unsent(exc: BaseException) -> bool:
    """Return True if the server cannot have done it although this was raised."""
    if is_before_sending(exc):
        return True
    return sys.modules.get("redis") is not None and isinstance(exc, _kinds()[1])
