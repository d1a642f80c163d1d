"""One connection to the broker, with a bound on everything that is done over it."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any, NamedTuple, Protocol

from amqp.exceptions import PreconditionFailed
from celery.app.amqp import task_message
from kombu.connection import Connection
from kombu.entity import Queue

from ._app import Application

__all__ = ["Failure", "Link", "Message", "ReturnedError", "open_link"]

Failure = Exception


class ReturnedError(Exception):
    """RabbitMQ gave the message back: no queue took it."""


class NackedError(Exception):
    """RabbitMQ refused the message."""


class UnconfirmedError(TimeoutError):
    """RabbitMQ has not said in time whether it has the message."""


class NotTriedError(Exception):
    """The message was not written: the time was over, or the connection had failed before."""


class Message(NamedTuple):
    """What Celery's own sender takes."""

    task: str
    """The task's registered name."""
    id: str
    """The message's id, Celery's task id."""
    parts: task_message
    """Headers, properties and body, as `app.amqp.as_task_v2` makes them."""
    queue: Queue
    """Where it goes."""
    headers: dict[str, Any]
    """Headers beside Celery's own."""
    properties: dict[str, Any]
    """AMQP properties: `priority`."""


class Link(Protocol):
    """A connection that publishes messages for one thread at a time."""

    usable: bool
    """False once it failed: what comes over it afterwards may answer an earlier question."""

    def publish(self, messages: Sequence[Message], until: float) -> list[Failure | None]:
        """Publish; None for each that the broker has, else why not."""
        ...

    def forget_queues(self) -> None:
        """Declare queues again before the next message: somebody has deleted one."""
        ...

    def is_alive(self) -> bool:
        """Whether the broker has not hung up, as far as can be known without asking it."""
        ...

    def abandon(self) -> None:
        """Close the socket at once, without a word to a broker that may not listen."""
        ...


def open_link(application: Application, timeout: float, *, confirm: bool, mandatory: bool) -> Link:
    """Connect to the broker. The caller bounds it as a whole; nothing stays open if it fails."""
    link: AMQPLink | OtherLink = (
        AMQPLink(application, timeout, confirm=confirm, mandatory=mandatory)
        if application.transport == "amqp"
        else OtherLink(application, timeout)
    )
    try:
        link.connect(timeout)
    except BaseException:
        link.abandon()
        raise
    return link


def _sender(application: Application, connection: Connection) -> Any:
    channel = connection.channel()
    return application.app.amqp.Producer(channel, auto_declare=False)


def _published(application: Application, producer: Any, message: Message, **more: Any) -> None:
    application.app.amqp.send_task_message(
        producer,
        message.task,
        message.parts,
        queue=message.queue,
        headers=dict(message.headers),
        declare=(),
        retry=False,
        serializer="json",
        **message.properties,
        **more,
    )


class AMQPLink:
    """RabbitMQ: publisher confirms, any number of them under way at once."""

    def __init__(
        self, application: Application, timeout: float, *, confirm: bool, mandatory: bool
    ) -> None:
        self.usable = True
        self._application = application
        self._confirm, self._mandatory = confirm, confirm and mandatory
        self._connection = application.app.connection_for_write(
            application.url,
            connect_timeout=timeout,
            heartbeat=0,
            transport_options={
                "confirm_publish": False,  # waited for here, for many at once
                "read_timeout": timeout,
                "write_timeout": timeout,
                "max_retries": 0,
            },
        )
        self._open: dict[int, int] = {}  # delivery tags, and the places of their messages
        self._answers: dict[int, Failure | None] = {}
        self._returned: set[str] = set()
        self._declared: set[str] = set()

    def connect(self, timeout: float) -> None:
        """Connect, and have every message confirmed from now on."""
        self._connection.ensure_connection(max_retries=0, timeout=timeout)
        # py-amqp's own: kombu's would connect again by itself, without a bound.
        self._amqp: Any = self._connection.connection
        self._open_channel()

    def _open_channel(self) -> None:
        self._producer = _sender(self._application, self._connection)
        self._channel = self._producer.channel
        self._sent = 0
        if self._confirm:
            self._channel.confirm_select()
        events = self._channel.events
        events["basic_ack"].add(self._acked)
        events["basic_nack"].add(self._nacked)
        events["basic_return"].add(self._came_back)

    def publish(self, messages: Sequence[Message], until: float) -> list[Failure | None]:
        """Publish all, then wait for the broker's word on each."""
        self._open.clear()
        self._answers.clear()
        self._returned.clear()
        try:
            self._write(messages, until)
            self._await(until)
        except Exception as exc:  # noqa: BLE001 - each message has an answer of its own
            self._fail(exc)
        missing = NotTriedError("the connection failed, or the time was over, before its turn")
        return [
            ReturnedError(f"no queue took it: {message.queue.name!r}")
            if message.id in self._returned
            else self._answers.get(place, missing)
            for place, message in enumerate(messages)
        ]

    def _write(self, messages: Sequence[Message], until: float) -> None:
        for message in messages:
            self._declare(message.queue)
        for place, message in enumerate(messages):
            left = until - monotonic()
            if left <= 0:
                return
            self._sent += 1
            self._open[self._sent] = place
            _published(
                self._application,
                self._producer,
                message,
                mandatory=self._mandatory,
                timeout=left,
            )
            if not self._confirm:
                self._settle(self._sent, None)

    def _declare(self, queue: Queue) -> None:
        """Once per connection: the workers declare the same, and may not have begun yet."""
        if queue.name in self._declared:
            return
        try:
            queue(self._channel).declare()
        except PreconditionFailed:  # it is there, with other arguments, and the channel is closed
            self._open_channel()
        self._declared.add(queue.name)

    def forget_queues(self) -> None:
        """Declare queues again: somebody has deleted one."""
        self._declared.clear()

    def _await(self, until: float) -> None:
        while self._open:
            left = until - monotonic()
            if left <= 0:
                raise UnconfirmedError("the broker has not confirmed it in time")
            self._amqp.drain_events(timeout=left)

    def _fail(self, exc: Exception) -> None:
        self.usable = False
        for tag in list(self._open):
            self._settle(tag, exc)

    def _settle(self, tag: int, answer: Failure | None) -> None:
        place = self._open.pop(tag, None)
        if place is not None:
            self._answers[place] = answer

    def _acked(self, tag: int, multiple: bool) -> None:
        for each in self._tags(tag, multiple=multiple):
            self._settle(each, None)

    def _nacked(self, tag: int, multiple: bool = False) -> None:
        for each in self._tags(tag, multiple=multiple):
            self._settle(each, NackedError("the broker refused it"))

    def _tags(self, tag: int, *, multiple: bool) -> list[int]:
        return [each for each in self._open if each <= tag] if multiple else [tag]

    def _came_back(self, exc: Exception, exchange: str, key: str, message: Any) -> None:
        del exc, exchange, key
        self._returned.add(str(message.properties.get("correlation_id")))

    def is_alive(self) -> bool:
        """Read what the broker has said meanwhile: a farewell, or nothing."""
        try:
            while select.select([self._amqp.transport.sock], [], [], 0)[0]:
                self._amqp.drain_events(timeout=0.001)
        except TimeoutError:
            return True
        except Exception:  # noqa: BLE001 - whatever it is, the connection is of no use
            return False
        return bool(self._amqp.connected)

    def abandon(self) -> None:
        """Close the socket."""
        with contextlib.suppress(Exception):
            sock = self._amqp.transport.sock
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def _unbounded(seconds: float) -> Generator[None]:
    """Transports that only kombu can bound."""
    del seconds
    yield


class OtherLink:
    """Redis, and kombu's other virtual transports: a write that returns has arrived."""

    def __init__(self, application: Application, timeout: float) -> None:
        self.usable = True
        self._application = application
        options = {"max_retries": 0, "socket_timeout": timeout, "socket_connect_timeout": timeout}
        self._connection = application.app.connection_for_write(
            application.url,
            connect_timeout=timeout,
            transport_options=options if application.transport == "redis" else {},
        )
        self._within: Callable[[float], AbstractContextManager[None]] = _unbounded
        self._opened: list[Any] = []
        if application.transport == "redis":
            self._be_bounded()

    def _be_bounded(self) -> None:
        from dispatchers.redis import within

        from ._redis import bounded_transport

        self._within = within
        self._connection.transport_cls = bounded_transport(self._connection, self._opened)

    def connect(self, timeout: float) -> None:
        """Connect now: what fails here was certainly not handed over."""
        with self._within(timeout):
            self._connection.ensure_connection(max_retries=0, timeout=timeout)
            self._producer = _sender(self._application, self._connection)
            if self._opened:
                with self._producer.channel.conn_or_acquire() as client:
                    client.ping()

    def publish(self, messages: Sequence[Message], until: float) -> list[Failure | None]:
        """Publish one, or several in one pipeline."""
        with self._within(until - monotonic()):
            return self._published(messages)

    def _published(self, messages: Sequence[Message]) -> list[Failure | None]:
        if len(messages) == 1:
            return [self._one(messages[0])]
        try:
            with self._producer.batch(max_size=len(messages) + 1):
                for message in messages:
                    _published(self._application, self._producer, message)
        except Exception as exc:  # noqa: BLE001 - one pipeline, one answer
            self.usable = False
            return [exc] * len(messages)
        return [None] * len(messages)

    def _one(self, message: Message) -> Failure | None:
        try:
            _published(self._application, self._producer, message)
        except Exception as exc:  # noqa: BLE001 - the answer
            self.usable = False
            return exc
        return None

    def forget_queues(self) -> None:
        """A list needs no declaration."""

    def is_alive(self) -> bool:
        """redis-py looks at its sockets itself, before it sends anything."""
        return True

    def abandon(self) -> None:
        """Close the sockets."""
        for connection in self._opened:
            with contextlib.suppress(Exception):
                connection.disconnect()
