"""What the exceptions of Celery's clients mean."""

from __future__ import annotations

from collections.abc import Iterator

import amqp.exceptions
import kombu.exceptions

from dispatchers import ErrorCategory

from ._link import NackedError, NotTriedError, ReturnedError, UnconfirmedError
from ._redis import is_before_sending

__all__ = ["category_of", "is_certainly_unsent"]

Kinds = tuple[tuple[type[BaseException], ErrorCategory], ...]

OWN: Kinds = (
    (ReturnedError, ErrorCategory.NOT_FOUND),
    (NackedError, ErrorCategory.CAPACITY),
    (UnconfirmedError, ErrorCategory.TIMEOUT),
    (NotTriedError, ErrorCategory.TIMEOUT),
)
AMQP: Kinds = (
    (amqp.exceptions.AccessRefused, ErrorCategory.PERMISSION),
    (amqp.exceptions.NotFound, ErrorCategory.NOT_FOUND),
    (amqp.exceptions.PreconditionFailed, ErrorCategory.CONFIGURATION),
    (amqp.exceptions.ResourceLocked, ErrorCategory.CONFLICT),
    (amqp.exceptions.ResourceError, ErrorCategory.CAPACITY),
    (amqp.exceptions.ContentTooLarge, ErrorCategory.TOO_LARGE),
    (amqp.exceptions.NotAllowed, ErrorCategory.PERMISSION),
    (amqp.exceptions.AMQPError, ErrorCategory.UNAVAILABLE),
)
KOMBU: Kinds = (
    (kombu.exceptions.EncodeError, ErrorCategory.INVALID),
    (kombu.exceptions.LimitExceeded, ErrorCategory.CAPACITY),
)
LAST: Kinds = (
    (TimeoutError, ErrorCategory.TIMEOUT),
    (kombu.exceptions.OperationalError, ErrorCategory.UNAVAILABLE),
)


def _redis() -> tuple[Kinds, tuple[type[BaseException], ...]]:
    """redis-py's, and those of them that the server answers instead of doing what was asked."""
    try:
        import redis.exceptions as found
    except ImportError:
        return (), ()
    kinds: Kinds = (
        (found.AuthenticationError, ErrorCategory.AUTHENTICATION),
        (found.AuthorizationError, ErrorCategory.AUTHENTICATION),
        (found.NoPermissionError, ErrorCategory.PERMISSION),
        (found.OutOfMemoryError, ErrorCategory.CAPACITY),
        (found.MaxConnectionsError, ErrorCategory.CAPACITY),
        (found.ReadOnlyError, ErrorCategory.UNAVAILABLE),
        (found.BusyLoadingError, ErrorCategory.UNAVAILABLE),
        (found.TimeoutError, ErrorCategory.TIMEOUT),
        (found.ConnectionError, ErrorCategory.UNAVAILABLE),
        (found.ResponseError, ErrorCategory.UNAVAILABLE),
    )
    refusals = (
        found.AuthenticationError,
        found.AuthorizationError,
        found.NoPermissionError,
        found.OutOfMemoryError,
        found.ReadOnlyError,
        found.BusyLoadingError,
        found.ResponseError,
    )
    return kinds, refusals


def category_of(exc: BaseException) -> ErrorCategory | None:
    """The category of what a client raised; None leaves it to the core."""
    redis_kinds, _ = _redis()
    kinds = (*OWN, *AMQP, *KOMBU, *redis_kinds, *LAST)
    for each in _chain(exc):
        for kind, category in kinds:
            if isinstance(each, kind) and type(each) is not kombu.exceptions.OperationalError:
                return category
    known = isinstance(exc, kombu.exceptions.OperationalError)
    return ErrorCategory.UNAVAILABLE if known else None


def is_certainly_unsent(exc: BaseException) -> bool:
    """Whether the broker cannot have the message although this was raised."""
    _, refusals = _redis()
    certain = (ReturnedError, NackedError, NotTriedError, kombu.exceptions.EncodeError, *refusals)
    return is_before_sending(exc) or any(isinstance(each, certain) for each in _chain(exc))


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it was raised from: kombu wraps what its transports raise."""
    while exc is not None:
        yield exc
        exc = exc.__cause__
