"""Messages to publish, and the queues they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Exchange", "Message", "Queue"]

PERSISTENT = 2
"""AMQP's delivery mode for what is kept on disk."""


class Exchange(NamedTuple):
    """An exchange that is declared before its first message."""

    name: str
    """Its name; never the default exchange, which cannot be declared."""
    type: str = "direct"
    """`direct`, `topic`, `fanout`, `headers`, or what a plugin brings."""
    durable: bool = True
    """It survives a restart of the broker."""
    auto_delete: bool = False
    """It goes with its last queue."""
    arguments: Mapping[str, Any] | None = None
    """RabbitMQ's optional arguments."""


class Queue(NamedTuple):
    """A queue that is declared before its first message."""

    name: str
    """Its name."""
    durable: bool = True
    """It survives a restart of the broker, and its persistent messages with it."""
    auto_delete: bool = False
    """It goes with its last consumer."""
    exclusive: bool = False
    """It belongs to one connection."""
    arguments: Mapping[str, Any] | None = None
    """RabbitMQ's optional arguments."""
    exchange: Exchange | None = None
    """The exchange it is bound to; every queue is bound to the default one."""
    routing_key: str = ""
    """The key of that binding."""

    @property
    def is_durable(self) -> bool:
        """It outlasts the broker's restarts, and its consumers."""
        return self.durable and not (self.auto_delete or self.exclusive)


class Message(NamedTuple):
    """One message to be published."""

    routing_key: str
    """The queue's name, with the default exchange."""
    data: bytes
    """The body."""
    id: str
    """Its `message_id`, unique within one call: what comes back is known by it."""
    exchange: str = ""
    """The exchange's name; the default one has none."""
    properties: Mapping[str, Any] | None = None
    """pika's `BasicProperties` by name; persistent (`delivery_mode` 2) by default. Values of
    headers that AMQP has no type for in pika, such as floats, travel as text."""
    queues: Sequence[Queue] = ()
    """Declared once per connection; what is there with other arguments is used as it is."""

    @property
    def is_durable(self) -> bool:
        """It asks for being kept on disk."""
        return bool((self.properties or {}).get("delivery_mode", PERSISTENT) == PERSISTENT)
