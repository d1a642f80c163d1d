"""The meaning of what Celery's clients raise."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import kombu.exceptions

from dispatchers import ErrorCategory, rabbitmq, redis

__all__ = ["category_of", "is_certainly_unsent"]

Kinds = tuple[tuple[type[BaseException], ErrorCategory], ...]


KINDS: Kinds = (
    (kombu.exceptions.EncodeError, ErrorCategory.INVALID),
    (kombu.exceptions.LimitExceeded, ErrorCategory.CAPACITY),
)
LAST: Kinds = (
    (TimeoutError, ErrorCategory.TIMEOUT),
    (kombu.exceptions.OperationalError, ErrorCategory.UNAVAILABLE),
)


def category_of(exc: BaseException) -> ErrorCategory | None:
    """Return the category of what a client raised; None leaves it to the core."""
    if any(_is_tls(each) for each in _chain(exc)):
        return ErrorCategory.AUTHENTICATION
    for each in _chain(exc):
        if type(each) is not kombu.exceptions.OperationalError and (found := _of_one(each)):
            return found
    known = isinstance(exc, kombu.exceptions.OperationalError)
    return ErrorCategory.UNAVAILABLE if known else None


def _of_one(exc: BaseException) -> ErrorCategory | None:
    own = next((category for kind, category in KINDS if isinstance(exc, kind)), None)
    if found := own or rabbitmq.category_of(exc) or redis.category_of(exc):
        return found
    return next((category for kind, category in LAST if isinstance(exc, kind)), None)


def is_certainly_unsent(exc: BaseException) -> bool:
    """Tell that the broker cannot have the message although this was raised."""
    return any(
        isinstance(each, kombu.exceptions.EncodeError)
        or rabbitmq.is_certainly_unsent(each)
        or redis.is_certainly_unsent(each)
        for each in _chain(exc)
    )


def _is_tls(exc: BaseException) -> bool:
    # redis-py 8 keeps only the words of what failed while it connected.
    said = isinstance(exc, kombu.exceptions.OperationalError) and "[SSL:" in str(exc)
    return said or isinstance(exc, ssl.SSLError)


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those it was raised from: kombu wraps what its transports raise."""
    while exc is not None:
        yield exc
        exc = exc.__cause__
