"""Answers of RabbitMQ to a publish, and their meaning.

::

    Exception
     +-- ReplyError         the broker closed the channel or the connection, with a reply code
     |    +-- RefusedError  ... because of this very message: certainly not stored
     +-- ReturnedError      no queue took the message: not stored
     +-- NackedError        the broker refused the message: not stored
     +-- BlockedError       the broker takes no messages for now; this one was not written
     +-- NotTriedError      the message was not written
    TimeoutError
     +-- UnconfirmedError   written, and not answered in time: may be stored
"""

from __future__ import annotations

from dispatchers._errors import ErrorCategory

__all__ = [
    "BlockedError",
    "NackedError",
    "NotTriedError",
    "RefusedError",
    "ReplyError",
    "ReturnedError",
    "UnconfirmedError",
    "category_of",
    "is_certainly_unsent",
]


class ReplyError(Exception):
    """RabbitMQ closed the channel or the connection, and gave a reason.

    Args:
        code: AMQP's reply code.

        text: RabbitMQ's words.

        channel: Only the channel was closed; the connection goes on.

        publishing: A published message is the reason.
    """

    def __init__(
        self, code: int, text: str, *, channel: bool = False, publishing: bool = False
    ) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.channel = channel
        self.publishing = publishing


class RefusedError(ReplyError):
    """RabbitMQ closed the channel because of this message, which it does not keep."""


class ReturnedError(Exception):
    """RabbitMQ gave the message back: no queue took it."""


class NackedError(Exception):
    """RabbitMQ refused the message."""


class BlockedError(Exception):
    """RabbitMQ takes no messages for now: it is low on memory or on disk."""


class NotTriedError(Exception):
    """The message was not written: the time was over, or the connection had failed before."""


class UnconfirmedError(TimeoutError):
    """RabbitMQ has not said in time whether it has the message."""


KINDS: tuple[tuple[type[BaseException], ErrorCategory], ...] = (
    (ReturnedError, ErrorCategory.NOT_FOUND),
    (NackedError, ErrorCategory.CAPACITY),
    (BlockedError, ErrorCategory.CAPACITY),
    (UnconfirmedError, ErrorCategory.TIMEOUT),
    (NotTriedError, ErrorCategory.TIMEOUT),
)
UNSENT = (ReturnedError, NackedError, BlockedError, NotTriedError, RefusedError)
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
"""AMQP's reply codes: specification 0-9-1, section 1.2; any other is a broken connection."""
LOGIN_REFUSED = "ACCESS_REFUSED - Login"
"""RabbitMQ refuses a name or a password with the code of a missing right."""
SIZE_REFUSED = "max size"
"""RabbitMQ 3.8 to 4.1 refuse by size with the code of a failed precondition."""


def category_of(exc: BaseException) -> ErrorCategory | None:
    """Return the category of an exception of this package; None for any other."""
    if isinstance(exc, ReplyError):
        return _of_reply(exc)
    # The cause says more: it is what had failed before this message's turn.
    if isinstance(exc, NotTriedError) and exc.__cause__ is not None:
        return category_of(exc.__cause__) or _of_socket(exc.__cause__)
    return next((category for kind, category in KINDS if isinstance(exc, kind)), None)


def _of_socket(exc: BaseException) -> ErrorCategory:
    is_late = isinstance(exc, TimeoutError)
    return ErrorCategory.TIMEOUT if is_late else ErrorCategory.UNAVAILABLE


def _of_reply(exc: ReplyError) -> ErrorCategory:
    # RabbitMQ has no codes of its own for these two: its words are all there is.
    if LOGIN_REFUSED in exc.text and not exc.channel:
        return ErrorCategory.AUTHENTICATION
    if exc.publishing and SIZE_REFUSED in exc.text:
        return ErrorCategory.TOO_LARGE
    return CODES.get(exc.code, ErrorCategory.UNAVAILABLE)


def is_certainly_unsent(exc: BaseException) -> bool:
    """Tell that the broker cannot have the message although `exc` was raised."""
    return isinstance(exc, UNSENT)
