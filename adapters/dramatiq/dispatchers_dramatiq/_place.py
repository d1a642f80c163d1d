"""What the adapter reads of a Dramatiq broker; handing over changes nothing of it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from dramatiq import Broker

from dispatchers import ConfigurationError
from dispatchers.stores import load_object

from ._options import DramatiqOptions

__all__ = ["Kind", "Place", "kind_of"]

Kind = Literal["redis", "rabbitmq", "stub"]
KINDS: dict[str, Kind] = {
    "dramatiq.brokers.redis.RedisBroker": "redis",
    "dramatiq.brokers.rabbitmq.RabbitmqBroker": "rabbitmq",
    "dramatiq.brokers.stub.StubBroker": "stub",
}
"""By dotted name: to import them all would need every client."""
DEFAULT_QUEUE = "default"
"""The queue of an actor that names none: dramatiq 2.2, `actor.py`."""
MARGIN = 0.9
"""The part of the redelivery window that work may wait unsettled."""


class Place:
    """A broker as the options name it.

    Raises:
        ConfigurationError: They name none, or two, or one of a kind that is not known.
    """

    def __init__(self, options: DramatiqOptions, alias: str) -> None:
        self._options = options
        self.broker: Any = _broker(options, alias)
        self.kind: Kind = _kind(self.broker, alias)

    @cached_property
    def default_queue(self) -> str:
        """Where work goes that names no queue."""
        return self._options.queue or DEFAULT_QUEUE

    @cached_property
    def own(self) -> list[str]:
        """The queues that our configuration names, at least one."""
        names = dict.fromkeys((self._options.queue, *self._options.queues))
        return [name for name in names if name] or [DEFAULT_QUEUE]

    def knows(self, queue: str) -> bool:
        """Whether a queue counts as declared."""
        return queue in self.own or queue in self.known

    @property
    def known(self) -> set[str]:
        """The names of all queues that count as declared."""
        return {*self.own, *self.broker.get_declared_queues()} - set(self.broker.delay_queues)

    @cached_property
    def max_priority(self) -> int:
        """`x-max-priority` of the queues on RabbitMQ; 0 where there are no priorities."""
        return int(getattr(self.broker, "max_priority", None) or 0)

    @property
    def max_hold(self) -> float:
        """Seconds that a delivery may wait unsettled in a worker's memory."""
        return self._options.window * MARGIN if self.kind == "rabbitmq" else float("inf")

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        if self.kind == "redis":
            found = self.broker.client.connection_pool.connection_kwargs
            return f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
        if self.kind == "rabbitmq":
            parameters = self.broker.parameters
            first = parameters[0] if isinstance(parameters, list) else parameters
            return f"{first.host}:{first.port}"
        return "this process"


def kind_of(broker: object) -> Kind | None:
    """The kind of a broker; None for one that is not known."""
    for base in type(broker).__mro__:
        if found := KINDS.get(f"{base.__module__}.{base.__qualname__}"):
            return found
    return None


def _kind(broker: object, alias: str) -> Kind:
    if found := kind_of(broker):
        return found
    raise ConfigurationError(
        f"dispatcher {alias!r} (dramatiq): no way to hand over to a {type(broker).__name__}: "
        "it takes a RedisBroker, a RabbitmqBroker or a StubBroker"
    )


def _broker(options: DramatiqOptions, alias: str) -> object:
    if (options.broker is None) is (options.url is None):
        raise ConfigurationError(
            f"dispatcher {alias!r} (dramatiq): give `broker`, your Dramatiq broker as "
            "'package.module:attribute', or `url`, the server's address, and not both"
        )
    if options.url is not None:
        return _from_address(options.url, options.max_priority, alias)
    named = options.broker
    broker = load_object("broker", named) if isinstance(named, str) else named
    if not isinstance(broker, Broker):
        raise ConfigurationError(
            f"dispatcher {alias!r} (dramatiq): broker is {type(broker).__name__}, no Dramatiq "
            "broker: name one as 'package.module:attribute'"
        )
    return broker


def _from_address(url: str, max_priority: int | None, alias: str) -> object:
    """A broker for a server that is known by its address alone; it connects to nobody yet."""
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis", "rediss", "unix"):
            from dramatiq.brokers.redis import RedisBroker

            return RedisBroker(url=url)
        if scheme in ("amqp", "amqps"):
            from dramatiq.brokers.rabbitmq import RabbitmqBroker

            return RabbitmqBroker(
                url=_with_host(url), max_priority=max_priority, confirm_delivery=True
            )
    except ValueError as exc:
        raise ConfigurationError(f"dispatcher {alias!r} (dramatiq): no address: {exc}") from None
    raise ConfigurationError(
        f"dispatcher {alias!r} (dramatiq): {scheme!r} is no address of a broker: "
        "write redis://HOST/0 or amqp://USER:PASSWORD@HOST"
    )


def _with_host(url: str) -> str:
    """With the virtual host named: `//`, as Celery writes it, is none for pika, nor is `/`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/%2F")) if parts.path in ("", "/", "//") else url
