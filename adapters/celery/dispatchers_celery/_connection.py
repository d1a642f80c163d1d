"""Publishers: one for RabbitMQ, one for kombu's other brokers, each within its time limit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from time import monotonic, time
from typing import Any

from kombu.common import maybe_declare

from dispatchers import ErrorCategory, RejectedError, Sent
from dispatchers.net import ConnectionPool, bounded, first_of

from ._broker import Broker, address_of, gate
from ._errors import category_of
from ._message import Draft, Message, message_of, way_of

__all__ = ["BATCH_SIZE", "KombuPublisher", "Publisher"]

BATCH_SIZE = 100
"""Messages in one pipeline, or waiting for their confirms at once."""
MIN_HOLD = 1.0
"""Seconds: a shorter delay is left to the worker's own timer, which is more exact."""


class Publisher(ABC):
    """Publishes to one broker. Serves many threads.

    Args:
        broker: The broker.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def publish(self, drafts: Sequence[Draft], until: float) -> list[Sent | Exception]:
        """Publish messages until then, on the monotonic clock; one answer each, in order.

        Raises:
            RejectedError: There is no connection: nothing was handed over.
        """
        answers: list[Any] = [self._made(draft, until) for draft in drafts]
        good = {n: each for n, each in enumerate(answers) if isinstance(each, Message)}
        sent = self._send(list(good.values()), until) if good else ()
        for position, answer in zip(good, sent, strict=True):
            answers[position] = answer
        return answers

    def _made(self, draft: Draft, until: float) -> Message | Exception:
        try:
            # Shorter delays are left to the worker: declaring queues would take as long.
            is_held = draft.due - time() > MIN_HOLD and self._can_hold(draft, until)
            # Looked at again: the broker may have been prepared first, which takes its time.
            hold = draft.due if is_held and draft.due - time() > MIN_HOLD else 0.0
            return message_of(self._broker, draft, hold)
        except Exception as exc:  # noqa: BLE001 - C1: each message has an answer of its own
            return _rejected(exc)

    @abstractmethod
    def _can_hold(self, draft: Draft, until: float) -> bool:
        """Tell whether the broker itself holds a delayed message back."""

    @abstractmethod
    def _send(self, messages: Sequence[Message], until: float) -> Sequence[Sent | Exception]:
        """Send messages that are made."""

    @abstractmethod
    def probe(self, timeout: float) -> None:
        """Reach the broker, or raise."""

    @abstractmethod
    def problems(self, queues: Iterable[str], timeout: float) -> Iterable[str]:
        """Return what the broker's own settings make of durable work; a sentence each."""

    @abstractmethod
    def sizes(self, queues: Iterable[str], timeout: float) -> dict[str, tuple[int, int | None]]:
        """Return how much waits in each queue, and how much of it is delayed, where known."""

    @abstractmethod
    def close(self) -> None:
        """Close what is idle, and keep nothing any more."""

    def _write(self, producer: Any, message: Message) -> None:
        draft = message.draft
        self._broker.send_task_message(
            producer,
            draft.task,
            message.parts,
            queue=draft.queue,
            declare=(),
            retry=False,
            serializer="json",
            **draft.options,
        )


def _rejected(exc: Exception) -> RejectedError:
    category = category_of(exc) or ErrorCategory.INTERNAL
    error = RejectedError(category, f"no message could be made: {type(exc).__name__}")
    error.__cause__ = exc
    return error


class KombuPublisher(Publisher):
    """Redis, and kombu's other virtual transports: a write that returns has arrived."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._pool: ConnectionPool[KombuConnection] = ConnectionPool(
            self._connected, category=category_of, address=broker.address
        )

    def _connected(self, timeout: float) -> KombuConnection:
        return first_of(self._broker.connections, self._open, timeout, name=address_of)

    def _open(self, connection: Any, timeout: float) -> KombuConnection:
        until = monotonic() + timeout

        def connecting() -> KombuConnection:
            with gate.entered():
                return KombuConnection(self._broker, connection, max(until - monotonic(), 0.001))

        # Counted by server: one that hangs must not refuse another dispatcher's connects.
        server = address_of(connection)
        return bounded(connecting, timeout=timeout, discard=KombuConnection.abandon, to=server)

    def lent(self, timeout: float) -> AbstractContextManager[KombuConnection]:
        """Lend a connection."""
        return self._pool.lent(timeout)

    def _can_hold(self, draft: Draft, until: float) -> bool:
        # Celery's own workers do not move messages out of the sorted set: theirs keep an `eta`.
        return self._broker.uses_redis and not draft.is_native

    def _send(self, messages: Sequence[Message], until: float) -> Sequence[Sent | Exception]:
        with self._pool.lent(until - monotonic()) as connection:
            return connection.publish(messages, self._write, until)

    def probe(self, timeout: float) -> None:
        with self._pool.lent(timeout):
            pass

    def problems(self, queues: Iterable[str], timeout: float) -> Iterable[str]:
        del queues
        if self._broker.kind != "redis":
            return ()
        from dispatchers.redis import durability

        with self._pool.lent(timeout) as connection, connection.client(timeout) as client:
            found = durability(client)
        return found.warnings

    def sizes(self, queues: Iterable[str], timeout: float) -> dict[str, tuple[int, int | None]]:
        with self._pool.lent(timeout) as connection:
            return {name: connection.size(name, timeout) for name in queues}

    def close(self) -> None:
        self._pool.close()


class KombuConnection:
    """A connection of kombu's, for one thread at a time.

    Args:
        broker: The broker.

        address: kombu's connection for one of its addresses, which is not connected itself.

        timeout: Seconds for connecting. The caller bounds it as a whole.
    """

    def __init__(self, broker: Broker, address: Any, timeout: float) -> None:
        self.usable = True
        self._broker = broker
        self._opened: list[Any] = []
        self._within: Callable[[float], AbstractContextManager[object]] = nullcontext
        self._once: Callable[[], AbstractContextManager[object]] = nullcontext
        # A clone: the application's own connection keeps its settings.
        self._connection = address.clone(connect_timeout=timeout)
        options = broker.app.conf.broker_transport_options or {}
        self._connection.transport_options = {**options}
        if broker.uses_redis:
            # Without retries: they outlast the deadline, and one after a lost reply is a duplicate.
            self._connection.transport_options |= {
                "max_retries": 0,
                "socket_timeout": timeout,
                "socket_connect_timeout": timeout,
            }
            self._use_own_transport(bound=broker.kind == "redis")
        elif broker.is_volatile:
            # Its queues have locks, which neither a fork nor a signal handler may meet.
            self._within, self._once = lambda _: gate.entered(), gate.entered_once
        try:
            self._connect(broker, timeout)
        except BaseException:
            self.abandon()
            raise

    def _use_own_transport(self, *, bound: bool) -> None:
        from dispatchers.redis import within

        from ._redis_consumer import publishing_transport

        if bound:
            self._within = within
        own = publishing_transport(self._connection, self._opened, bound=bound)
        self._connection.transport_cls = own

    def _connect(self, broker: Broker, timeout: float) -> None:
        """Connect now: what fails here was certainly not handed over."""
        with self._within(timeout):
            self._connection.ensure_connection(max_retries=0, timeout=timeout)
            self._producer = broker.amqp.Producer(self._connection.channel(), auto_declare=False)
            self._watch: Any = None
            if broker.kind == "redis":
                self._watch_settings()

    def _watch_settings(self) -> None:
        from dispatchers.redis import DurabilityWatch

        with self._producer.channel.conn_or_acquire() as client:
            client.ping()
            self._watch = DurabilityWatch(client)

    def publish(
        self, messages: Sequence[Message], write: Callable[..., None], until: float
    ) -> list[Sent | Exception]:
        """Publish one, or several in one pipeline: what is sent has one answer for all."""
        answers: list[Any] = [None] * len(messages)
        try:
            with self._once(), self._within(until - monotonic()):
                answers = [self._route(message.draft) for message in messages]
                taken = [m for m, answer in zip(messages, answers, strict=True) if answer is None]
                self._publish(taken, write, until)
                # False where the server's settings are known to lose what it has accepted.
                durable = None if self._watch is None else self._watch.durable()
        except Exception as exc:  # noqa: BLE001 - the answer
            # An answer may still be under way: the next command would take it for its own.
            self.usable = False
            return [answer or exc for answer in answers]
        return [
            answer or Sent(message.draft.id, durable=durable)
            for message, answer in zip(messages, answers, strict=True)
        ]

    def _route(self, draft: Draft) -> RejectedError | None:
        """Declare what a named exchange leads to; kombu drops what no queue takes.

        Celery's own sender declares it as well, once for each connection.
        """
        exchange, key = way_of(draft)
        if not exchange:
            return None
        channel = self._producer.channel
        if not hasattr(channel, "get_table"):  # the broker itself routes, as Qpid does
            return None
        maybe_declare(draft.queue, channel)
        kind = channel.typeof(exchange)
        if self._broker.uses_redis and kind.type == "fanout":
            message = f"Redis keeps nothing that is sent to a fanout exchange, as {exchange!r} is"
            return RejectedError(ErrorCategory.UNSUPPORTED, f"{message}: name another queue")
        if not any(kind.lookup(channel.get_table(exchange), exchange, key, None)):
            message = f"no queue took it: exchange {exchange!r} has none for {key!r}"
            return RejectedError(ErrorCategory.NOT_FOUND, message)
        return None

    def _publish(
        self, messages: Sequence[Message], write: Callable[..., None], until: float
    ) -> None:
        if not messages:
            return
        # A pipeline for a single message would cost a round trip more.
        if len(messages) == 1:
            messages[0].draft.run(self._written, write, messages[0], until)
            return
        with self._producer.batch(max_size=len(messages) + 1):
            for message in messages:
                message.draft.run(self._written, write, message, until)

    def _written(self, write: Callable[..., None], message: Message, until: float) -> None:
        with self._within(until - monotonic()):  # which the caller's context does not know of
            write(self._producer, message)

    @contextmanager
    def client(self, timeout: float) -> Generator[Any]:
        """Lend the client of redis-py."""
        with self._within(timeout), self._producer.channel.conn_or_acquire() as client:
            yield client

    @property
    def channel(self) -> Any:
        """Return kombu's channel."""
        return self._producer.channel

    def evaluate(
        self, script: str, keys: Sequence[str], args: Sequence[Any], timeout: float
    ) -> Any:
        """Run a script on Redis, with the application's prefix before each key."""
        prefixed = [self.channel.global_keyprefix + key for key in keys]
        return self._command("EVAL", script, len(keys), *prefixed, *args, timeout=timeout)

    def command(self, name: str, key: str, *args: Any, timeout: float) -> Any:
        """Run a command on Redis for one key, with the application's prefix before it."""
        return self._command(name, self.channel.global_keyprefix + key, *args, timeout=timeout)

    def _command(self, *command: Any, timeout: float) -> Any:
        # Late: only brokers on Redis have it.
        from redis import Redis

        with self.client(timeout) as client:
            # Of the base class: kombu's own client would prefix some arguments.
            return Redis.execute_command(client, *command)

    def size(self, queue: str, timeout: float) -> tuple[int, int | None]:
        """Return how much waits in a queue, and how much of it is delayed."""
        channel = self._producer.channel
        with self._within(timeout):
            waiting = channel._size(queue)
            delayed = getattr(channel, "delayed", None)
            return int(waiting), None if delayed is None else delayed(queue)

    def is_alive(self) -> bool:
        """Say yes: redis-py looks at its sockets itself, before it sends anything."""
        return True

    def abandon(self) -> None:
        """Close the sockets."""
        # One by one: kombu does not close all connections that it has opened (5.7).
        for connection in self._opened:
            with suppress(Exception):
                connection.disconnect()
