"""The configured Dramatiq broker, which dispatching does not change."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from dramatiq import Broker

from dispatchers import ConfigurationError
from dispatchers.delivery import HOLD_SHARE
from dispatchers.net import misread
from dispatchers.redis import bounded_client
from dispatchers.stores import load_client

from ._errors import PrivatePartError
from ._options import DramatiqOptions

Kind = Literal["redis", "rabbitmq", "stub"]
KINDS: dict[str, Kind] = {
    "dramatiq.brokers.redis.RedisBroker": "redis",
    "dramatiq.brokers.rabbitmq.RabbitmqBroker": "rabbitmq",
    "dramatiq.brokers.stub.StubBroker": "stub",
}
"""By dotted name: to import them all would need every client."""
PRIVATE_PARTS: dict[Kind, tuple[str, ...]] = {
    "redis": (
        *("client", "namespace", "scripts", "broker_id", "heartbeat_timeout"),
        *("dead_message_ttl", "_max_unpack_size"),
    ),
    "rabbitmq": ("parameters", "max_priority", "_build_queue_arguments"),
    "stub": ("queues", "dead_letters_by_queue"),
}
"""What is used of a broker beside its documented interface."""
DEFAULT_QUEUE = "default"
"""The queue of an actor that names none: dramatiq 2.2, `actor.py`."""
RESERVED = (".DQ", ".XQ", ".msgs", ".dispatchers")
"""Ends of names that Dramatiq and this adapter derive from a queue's."""


class ConfiguredBroker:
    """A Dramatiq broker as the options name it.

    Raises:
        ConfigurationError: They name none, or two, or one of an unknown kind, or a queue whose name
            Dramatiq uses itself.
    """

    def __init__(self, options: DramatiqOptions, alias: str) -> None:
        self._options = options
        self.dramatiq: Any = _loaded(options, alias)
        self.kind: Kind = _kind(self.dramatiq, alias)
        expect(self.dramatiq, PRIVATE_PARTS[self.kind])
        for name in self.own:
            if is_reserved(name):
                raise ConfigurationError(
                    f"dispatcher {alias!r} (dramatiq): queue {name!r} has a name of Dramatiq's "
                    f"own: one that begins with __ or ends in {', '.join(RESERVED)}"
                )

    @cached_property
    def default_queue(self) -> str:
        """The queue of work that names none."""
        return self._options.queue or DEFAULT_QUEUE

    @cached_property
    def own(self) -> list[str]:
        """The queues that our configuration names, at least one."""
        names = dict.fromkeys((self._options.queue, *self._options.queues))
        return [name for name in names if name] or [DEFAULT_QUEUE]

    def knows(self, queue: str) -> bool:
        """Tell whether a queue counts as declared."""
        return queue in self.own or (queue in self.known and not is_reserved(queue))

    @property
    def known(self) -> set[str]:
        """The names of all queues that count as declared."""
        declared = self.dramatiq.get_declared_queues()
        return {*self.own, *declared} - set(self.dramatiq.delay_queues)

    def queue_of_actor(self, name: str) -> str | None:
        """Return the queue of one of the broker's actors, where it is known."""
        actor = self.dramatiq.actors.get(name)
        return None if actor is None else str(actor.queue_name)

    @cached_property
    def max_priority(self) -> int:
        """`x-max-priority` of the queues on RabbitMQ; 0 where there are no priorities."""
        return int(getattr(self.dramatiq, "max_priority", None) or 0)

    @property
    def max_hold(self) -> float:
        """Seconds that a delivery may wait unsettled in a worker's memory."""
        return self._options.window * HOLD_SHARE if self.kind == "rabbitmq" else float("inf")


def is_reserved(queue: str) -> bool:
    """Tell whether Dramatiq itself uses keys or queues of this name."""
    return queue.startswith("__") or queue.endswith(RESERVED)


def expect(found: object, names: Iterable[str]) -> None:
    """Refuse a Dramatiq that lacks a private part which work would be lost without.

    Raises:
        PrivatePartError: A name is missing.
    """
    if missing := [name for name in names if not hasattr(found, name)]:
        raise PrivatePartError(
            f"{type(found).__name__} of dramatiq {version('dramatiq')} has no {missing[0]!r}, "
            "which this version of dispatchers needs to lose nothing: install an earlier dramatiq, "
            "2.0 to 2.2, or a later dispatchers"
        )


def kind_of(broker: object) -> Kind | None:
    """Return the kind of a broker; None for an unknown one."""
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


def _loaded(options: DramatiqOptions, alias: str) -> object:
    subject, what = f"dispatcher {alias!r} (dramatiq)", "your Dramatiq broker"
    broker = load_client(subject, "broker", options.broker, options.url, what)
    if options.url is not None:
        return _from_address(options.url, options.max_priority, alias)
    if not isinstance(broker, Broker):
        raise ConfigurationError(
            f"{subject}: broker is {type(broker).__name__}, no Dramatiq "
            "broker: name one as 'package.module:attribute'"
        )
    return broker


def _from_address(url: str, max_priority: int | None, alias: str) -> object:
    """Return a broker for a server that is known by its address alone, unconnected."""
    try:
        if url.startswith(("redis://", "rediss://", "unix://")):
            from dramatiq.brokers.redis import RedisBroker

            bounded_client(url)  # which refuses an address that redis-py would misread
            return RedisBroker(url=url)
        if url.startswith(("amqp://", "amqps://")):
            from dramatiq.brokers.rabbitmq import RabbitmqBroker

            addresses = [_with_virtual_host(each) for each in url.split(";")]
            return RabbitmqBroker(
                url=addresses if len(addresses) > 1 else addresses[0],
                max_priority=max_priority,
                confirm_delivery=True,
            )
    except ConfigurationError as exc:
        raise ConfigurationError(f"dispatcher {alias!r} (dramatiq): url: {exc}") from None
    except Exception as exc:  # noqa: BLE001 - whatever a client's parser raises
        kind = type(exc).__name__  # its words may quote a part of the address, a password say
        raise _unreadable(alias, f"cannot be read ({kind})") from None
    raise _unreadable(alias, "begins with none of redis://, rediss://, unix://, amqp://, amqps://")


def _unreadable(alias: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"dispatcher {alias!r} (dramatiq): url {why}: write redis://HOST:6379/0 or "
        "amqp://USER:PASSWORD@HOST:5672/VHOST, with reserved characters as %XX"
    )


def _with_virtual_host(url: str) -> str:
    """Name the virtual host: `//`, as Celery writes it, is none for pika, nor is `/`.

    Raises:
        ConfigurationError: A part of the address would be dropped.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ConfigurationError("an address begins with amqp:// or amqps:// and names a host")
    why = misread(url)
    if why is None and parts.path != "//" and parts.path.count("/") > 1:
        why = "pika ends the virtual host at the second /: write it as %2F"
    if why is not None:
        raise ConfigurationError(why)
    return urlunsplit(parts._replace(path="/%2F")) if parts.path in ("", "/", "//") else url
