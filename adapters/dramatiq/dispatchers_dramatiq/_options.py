"""The options of `dramatiq`."""

from __future__ import annotations

from pydantic import Field

from dispatchers import BackendOptions


class DramatiqOptions(BackendOptions):
    """Options of `dramatiq`: the broker, or its address."""

    broker: object = None
    """The Dramatiq broker: `package.module:attribute`, or in code the object itself."""
    url: str | None = Field(default=None, min_length=1)
    """The server's address, for a broker of our own; instead of `broker`."""
    confirm: bool = True
    """RabbitMQ: wait until the broker says that it has the message."""
    mandatory: bool = True
    """RabbitMQ, with `confirm`: a message that no queue took is refused."""
    max_priority: int | None = Field(default=None, ge=1, le=255)
    """RabbitMQ, with `url`: declare queues with so many priorities; None is none."""
    window: float = Field(default=1800.0, gt=0)
    """RabbitMQ: seconds after which it gives unsettled work to another worker, its
    `consumer_timeout`."""
    eager: bool = False
    """`StubBroker`: run tasks and existing actors in the call, in place of putting them into its
    queue."""
