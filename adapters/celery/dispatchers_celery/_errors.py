"""What the exceptions of Celery's clients mean."""

from __future__ import annotations

from collections.abc import Iterator

import amqp.exceptions
import kombu.exceptions

from dispatchers import ErrorCategory

try:
    from dispatchers.redis import category_of as redis_category
    from dispatchers.redis import is_certainly_unsent as redis_refused
except ImportError:  # redis-py is not installed: its exceptions cannot come

    def redis_category(exc: BaseException) -> ErrorCategory | None:
        """Of none."""
        del exc
        return None

    def redis_refused(exc: BaseException) -> bool:
        """None has."""
        del exc
        return False


from ._link import NackedError, NotTriedError, ReturnedError, UnconfirmedError

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


def category_of(exc: BaseException) -> ErrorCategory | None:
    """The category of what a client raised; None leaves it to the core."""
    for each in _chain(exc):
        if type(each) is not kombu.exceptions.OperationalError and (found := _of_one(each)):
            return found
    known = isinstance(exc, kombu.exceptions.OperationalError)
    return ErrorCategory.UNAVAILABLE if known else None


def _of_one(exc: BaseException) -> ErrorCategory | None:
    for kind, category in (*OWN, *AMQP, *KOMBU):
        if isinstance(exc, kind):
            return category
    return redis_category(exc) or next((c for kind, c in LAST if isinstance(exc, kind)), None)


def is_certainly_unsent(exc: BaseException) -> bool:
    """Whether the broker cannot have the message although this was raised."""
    certain = (ReturnedError, NackedError, NotTriedError, kombu.exceptions.EncodeError)
    return any(isinstance(each, certain) or redis_refused(each) for each in _chain(exc))


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it was raised from: kombu wraps what its transports raise."""
    while exc is not None:
        yield exc
        exc = exc.__cause__
