"""Publishers: one for each kind of broker, each within its time limit."""

from __future__ import annotations

import importlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from time import time
from typing import Any

from dramatiq import Message
from dramatiq.common import current_millis, dq_name, q_name, xq_name

from dispatchers import ConfigurationError, Stats, queue_stats
from dispatchers.net import ForkGate
from dispatchers.rabbitmq import Message as RabbitMessage
from dispatchers.rabbitmq import Publisher as RabbitMQ
from dispatchers.rabbitmq import Queue, Server
from dispatchers.redis import DurabilityWatch, Script, bounded_client, durability, within

from ._broker import ConfiguredBroker, Kind
from ._errors import PrivatePartError
from ._message import Packet, told
from ._options import DramatiqOptions

BATCH_SIZE = 100
"""Messages that are published together; the deadline is looked at between."""
NO_MAINTENANCE, MAINTENANCE, UNPACKED = b"0", b"1", b"1"
"""The script's arguments for maintenance, which is the workers' business."""
SCRIPT_MARKS = (b"max_unpack_size = ARGV[8]", b"for i=9,#ARGV do", b'command == "enqueue"')
"""What Dramatiq's script has as long as it takes its arguments in the order used here."""

gate = ForkGate()
declaring = threading.RLock()
"""Two threads that declared a stub broker's queue at once would make it twice, and lose work."""
gate.guard(declaring)


class Publisher(ABC):
    """Hands packets to a broker, and counts what is there.

    Args:
        broker: The configured broker; its settings are taken, its connections are not used.

        options: The dispatcher's.
    """

    def __init__(self, broker: ConfiguredBroker, options: DramatiqOptions) -> None:
        self.broker: Any = broker.dramatiq
        self.options = options

    def publish(self, packets: Sequence[Packet], timeout: float) -> list[Exception | None]:
        """Publish within `timeout` seconds; None for each that the broker has, else why not."""
        answers = self._publish(packets, timeout)
        # Only after the broker has it: middleware such as an admin's must not list what failed.
        for packet, answer in zip(packets, answers, strict=True):
            if answer is None:
                told(self.broker, packet)
        return answers

    @abstractmethod
    def _publish(self, packets: Sequence[Packet], timeout: float) -> list[Exception | None]: ...

    def durable(self, queue: str) -> bool | None:
        """Return False for a queue whose accepted work is known to be lost; None is not known."""
        del queue
        return None

    def probe(self, queues: Sequence[str], timeout: float) -> Sequence[str]:
        """Reach the broker, or raise; return what its settings lose."""
        del queues, timeout
        return ()

    @abstractmethod
    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """Return how many messages wait in these queues, delayed ones among them."""

    @abstractmethod
    def stats(self, queues: Sequence[str], timeout: float) -> list[Stats]:
        """Return the figures of these queues."""

    def close(self) -> None:  # noqa: B027 - nothing is open
        """Close what is open."""


def publisher_of(broker: ConfiguredBroker, options: DramatiqOptions) -> Publisher:
    """Return the publisher for a broker."""
    importlib.import_module("encodings.idna")  # not by a name's first resolution, beside a fork
    kinds: dict[Kind, type[RedisPublisher | RabbitPublisher | StubPublisher]]
    kinds = {"redis": RedisPublisher, "rabbitmq": RabbitPublisher, "stub": StubPublisher}
    return kinds[broker.kind](broker, options)


class RabbitPublisher(Publisher):
    """Publishes to RabbitMQ, confirmed; queues are declared as Dramatiq declares them."""

    def __init__(self, broker: ConfiguredBroker, options: DramatiqOptions) -> None:
        super().__init__(broker, options)
        found = self.broker.parameters
        servers = [Server.of_pika(each) for each in (found if isinstance(found, list) else [found])]
        self._client = RabbitMQ(servers, confirm=options.confirm, mandatory=options.mandatory)
        self._declarations: dict[str, tuple[Queue, ...]] = {}

    def _publish(self, packets: Sequence[Packet], timeout: float) -> list[Exception | None]:
        return self._client.publish([self._message(packet) for packet in packets], timeout)

    def _message(self, packet: Packet) -> RabbitMessage:
        properties = {} if packet.priority is None else {"priority": packet.priority}
        queues = self._queues(q_name(packet.queue))
        return RabbitMessage(
            packet.queue, packet.data, packet.stored_as, properties=properties, queues=queues
        )

    def _queues(self, name: str) -> tuple[Queue, ...]:
        """Return a queue with its delayed and its dead one, as Dramatiq declares them."""
        if (found := self._declarations.get(name)) is None:
            from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL

            own = self.broker._build_queue_arguments(name)
            dead = Queue(xq_name(name), arguments={"x-message-ttl": DEAD_MESSAGE_TTL})
            delayed = Queue(dq_name(name), arguments=own)
            found = self._declarations[name] = (Queue(name, arguments=own), delayed, dead)
        return found

    def durable(self, queue: str) -> bool | None:
        """Return False for a queue that turned out not to be durable."""
        own = [each for each in self._queues(q_name(queue)) if each.name == queue]
        is_durable = self._client.is_durable(RabbitMessage(queue, b"", "", queues=own))
        return None if is_durable else False

    def probe(self, queues: Sequence[str], timeout: float) -> Sequence[str]:
        """Reach the server, or raise; return what its settings lose of delayed and due work."""
        return self._client.check([q for n in queues for q in self._queues(n)[:2]], timeout)

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """Return how many messages wait; those that a worker holds are not among them."""
        sizes = self._client.sizes([n for q in queues for n in (q, dq_name(q))], timeout)
        return sum(size or 0 for size in sizes.values())

    def stats(self, queues: Sequence[str], timeout: float) -> list[Stats]:
        """Return ready and dead messages: AMQP tells neither what workers hold, nor its age."""
        sizes = self._client.sizes([n for q in queues for n in (q, xq_name(q))], timeout)
        return queue_stats(
            waiting={name: sizes[name] or 0 for name in queues},
            dead={name: sizes[xq_name(name)] or 0 for name in queues},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class RedisPublisher(Publisher):
    """Publishes to Redis by Dramatiq's own script, over bounded connections."""

    def __init__(self, broker: ConfiguredBroker, options: DramatiqOptions) -> None:
        super().__init__(broker, options)
        source = self.broker.scripts["dispatch"].script
        text = source if isinstance(source, bytes) else source.encode()
        # Asked now: with other arguments the script could misplace a message without an error.
        if any(mark not in text for mark in SCRIPT_MARKS):
            raise PrivatePartError(
                "dramatiq's script for Redis takes other arguments than those of 2.0 to 2.2: "
                "install one of these, or a later dispatchers"
            )
        self._script = Script(text.decode())
        # A client of its own: the broker's retries for a minute and keeps to no deadline.
        self._client: Any = bounded_client(self.broker.client)
        self._watch = DurabilityWatch(self._client)
        self._known_durable: bool | None = None

    def _publish(self, packets: Sequence[Packet], timeout: float) -> list[Exception | None]:
        items, keys = [self._args(packet) for packet in packets], [self.broker.namespace]
        with within(timeout):
            replies = self._script.run_many(self._client, items, keys=keys)
            self._known_durable = self._watch.durable()
        return [each if isinstance(each, Exception) else None for each in replies]

    def _args(self, packet: Packet) -> tuple[Any, ...]:
        """Return the arguments that `RedisBroker.do_enqueue` gives, dramatiq 2.0 to 2.2."""
        broker = self.broker
        head = (b"enqueue", current_millis(), packet.queue, broker.broker_id)
        limits = (broker.heartbeat_timeout, broker.dead_message_ttl, NO_MAINTENANCE, UNPACKED)
        return (*head, *limits, packet.stored_as, packet.data)

    @property
    def client(self) -> Any:
        """Return the bounded client."""
        return self._client

    def maintained(self, queues: Sequence[str], name: str) -> list[Any]:
        """Give a sign of life of a worker, and give back what dead ones had of some queues.

        Returns:
            A reply for each, or the exception in its place.
        """
        broker, now = self.broker, current_millis()
        limits = (broker.heartbeat_timeout, broker.dead_message_ttl, MAINTENANCE, UNPACKED)
        items = [(b"qsize", now, queue, name, *limits) for queue in queues]
        return self._script.run_many(self._client, items, keys=[broker.namespace])

    def durable(self, queue: str) -> bool | None:
        """Return False where the server is known to lose what it accepted."""
        del queue
        return self._known_durable

    def probe(self, queues: Sequence[str], timeout: float) -> Sequence[str]:
        """Reach the server, or raise; return what its settings lose."""
        del queues
        with within(timeout):
            self._client.ping()
            found = durability(self._client)
        if found.refuses_writes:
            raise ConfigurationError("; ".join(found.warnings))
        return found.warnings

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """Return how many messages wait in these queues, or are with a worker."""
        with within(timeout):
            return sum(
                self._client.hlen(f"{self.broker.namespace}:{name}.msgs")
                for queue in queues
                for name in (queue, dq_name(queue))
            )

    def stats(self, queues: Sequence[str], timeout: float) -> list[Stats]:
        """Return all figures; the oldest due work is the one at the head of the queue."""
        space = self.broker.namespace
        with within(timeout), self._client.pipeline(transaction=False) as pipe:
            for name in queues:
                pipe.llen(f"{space}:{name}").hlen(f"{space}:{name}.msgs")
                pipe.hlen(f"{space}:{dq_name(name)}.msgs").zcard(f"{space}:{xq_name(name)}")
                pipe.lindex(f"{space}:{name}", 0)
            answers = iter(pipe.execute())
            found = {name: list(islice(answers, 5)) for name in queues}
            oldest = {name: self._age(name, each[4]) for name, each in found.items() if each[4]}
        return queue_stats(
            waiting={name: each[0] for name, each in found.items()},
            running={name: max(0, each[1] - each[0]) for name, each in found.items()},
            delayed={name: each[2] for name, each in found.items()},
            dead={name: each[3] for name, each in found.items()},
            oldest=oldest,
        )

    def _age(self, queue: str, key: bytes) -> float:
        data = self._client.hget(f"{self.broker.namespace}:{queue}.msgs", key)
        try:
            written = float(Message.decode(data).message_timestamp)
            return max(0.0, time() - written / 1000)
        except Exception:  # noqa: BLE001 - foreign, or fetched meanwhile
            return 0.0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._client.connection_pool.disconnect()


class StubPublisher(Publisher):
    """Puts messages into the queues of a `StubBroker`, in this process."""

    def _publish(self, packets: Sequence[Packet], timeout: float) -> list[Exception | None]:
        del timeout
        with gate.entered_once():
            for packet in packets:
                self._declared(packet.queue).put(packet.data)
        return [None] * len(packets)

    def _declared(self, name: str) -> Any:
        with declaring:
            self.broker.declare_queue(q_name(name))
            queue = self.broker.queues[name]
        gate.guard(queue.mutex)
        return queue

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """Return how many messages wait in these queues, or are with a worker."""
        del timeout
        return sum(q.unfinished_tasks for n in queues for q in self._found(n, dq_name(n)))

    def stats(self, queues: Sequence[str], timeout: float) -> list[Stats]:
        """Return what this process has."""
        del timeout
        dead = self.broker.dead_letters_by_queue
        return queue_stats(
            waiting={name: sum(q.qsize() for q in self._found(name)) for name in queues},
            delayed={name: sum(q.qsize() for q in self._found(dq_name(name))) for name in queues},
            dead={name: len(dead.get(name, ())) for name in queues},
        )

    def _found(self, *names: str) -> Iterator[Any]:
        return (self.broker.queues[name] for name in names if name in self.broker.queues)
