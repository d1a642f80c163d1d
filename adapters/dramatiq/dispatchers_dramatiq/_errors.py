"""Classification of what Dramatiq's clients raise."""

from __future__ import annotations

from dispatchers import ConfigurationError, ErrorCategory, rabbitmq, redis


class TaskFailedError(Exception):
    """The work failed, for a reason other than an exception of its handler."""


class PrivatePartError(ConfigurationError):
    """A private part of Dramatiq that this adapter relies on has changed."""


def category_of(exc: BaseException) -> ErrorCategory | None:
    """Return the category of what a client raised; None leaves it to the core."""
    return rabbitmq.category_of(exc) or redis.category_of(exc)


def is_certainly_unsent(exc: BaseException) -> bool:
    """Tell that the broker cannot have the message although `exc` was raised."""
    return rabbitmq.is_certainly_unsent(exc) or redis.is_certainly_unsent(exc)
