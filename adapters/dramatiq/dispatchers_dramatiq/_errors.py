"""What the exceptions of Dramatiq's clients mean."""

from __future__ import annotations

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


__all__ = [
    "BrokerSaidError",
    "NackedError",
    "NotTriedError",
    "ReturnedError",
    "UnconfirmedError",
    "category_of",
    "is_certainly_unsent",
]


class BrokerSaidError(Exception):
    """RabbitMQ closed the channel or the connection, and said why.

    Args:
        code: AMQP's reply code.

        text: RabbitMQ's words.

        channel: Whether the connection goes on.
    """

    def __init__(self, code: int, text: str, *, channel: bool) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.channel = channel


class ReturnedError(Exception):
    """RabbitMQ gave the message back: no queue took it."""


class NackedError(Exception):
    """RabbitMQ refused the message."""


class UnconfirmedError(TimeoutError):
    """RabbitMQ has not said in time whether it has the message."""


class NotTriedError(Exception):
    """The message was not written: the time was over, or the connection had failed before."""


KINDS: tuple[tuple[type[BaseException], ErrorCategory], ...] = (
    (ReturnedError, ErrorCategory.NOT_FOUND),
    (NackedError, ErrorCategory.CAPACITY),
    (UnconfirmedError, ErrorCategory.TIMEOUT),
    (NotTriedError, ErrorCategory.TIMEOUT),
)
UNSENT = (ReturnedError, NackedError, NotTriedError)

CODES = {
    311: ErrorCategory.TOO_LARGE,
    312: ErrorCategory.NOT_FOUND,
    403: ErrorCategory.PERMISSION,
    404: ErrorCategory.NOT_FOUND,
    405: ErrorCategory.CONFLICT,
    406: ErrorCategory.CONFIGURATION,
    506: ErrorCategory.CAPACITY,
    530: ErrorCategory.PERMISSION,
}
"""AMQP's reply codes: specification 0-9-1, section 1.2; what is not here is a broken connection."""
LOGIN_REFUSED = "ACCESS_REFUSED - Login"
"""How RabbitMQ begins to refuse a name or a password, with the code of a missing right."""


def category_of(exc: BaseException) -> ErrorCategory | None:
    """The category of what a client raised; None leaves it to the core."""
    if isinstance(exc, BrokerSaidError):
        return _of_what_was_said(exc)
    found = next((category for kind, category in KINDS if isinstance(exc, kind)), None)
    return found or redis_category(exc)


def _of_what_was_said(exc: BrokerSaidError) -> ErrorCategory:
    if LOGIN_REFUSED in str(exc) and not exc.channel:
        return ErrorCategory.AUTHENTICATION
    return CODES.get(exc.code, ErrorCategory.UNAVAILABLE)


def is_certainly_unsent(exc: BaseException) -> bool:
    """Whether the broker cannot have the message although this was raised."""
    return isinstance(exc, UNSENT) or redis_refused(exc)
