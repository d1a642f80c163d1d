"""The options of `celery`."""

from __future__ import annotations

from pydantic import Field

from dispatchers import BackendOptions

__all__ = ["CeleryOptions"]


class CeleryOptions(BackendOptions):
    """Options of `celery`: the application, or the broker's address."""

    app: object = None
    """The Celery application: `package.module:attribute`, or in code the object itself."""
    url: str | None = Field(default=None, min_length=1)
    """The broker's address, for an application of our own; instead of `app`."""
    confirm: bool = True
    """RabbitMQ: wait until the broker says that it has the message."""
    mandatory: bool = True
    """RabbitMQ, with `confirm`: a message that no queue took is refused."""
    priorities: bool = False
    """Redis: sort work of a queue into four lists; off, there is no priority."""
    window: float | None = Field(default=None, gt=0)
    """Seconds after which the broker gives unsettled work to another worker; None is the
    application's `visibility_timeout` on Redis (3600), and 1800 on RabbitMQ (its
    `consumer_timeout`)."""
