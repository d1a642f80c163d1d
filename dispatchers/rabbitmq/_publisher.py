"""Publishing over pooled connections, one or many messages at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from dispatchers._errors import ConfigurationError, MissingDependencyError
from dispatchers._runtime.connection_pool import ConnectionPool, first_of
from dispatchers._runtime.importing import install

from ._durability import problems_of
from ._errors import NotTriedError, ReturnedError, category_of
from ._message import Message, Queue
from ._server import Server

if TYPE_CHECKING:
    from ._connection import Connection

__all__ = ["Publisher"]

BATCH_SIZE = 100
"""Messages that wait for their confirms at once: more bring no more speed (measured)."""
BATCH_BYTES = 1 << 20
"""Bytes of them, so that a message which may be refused by its size is published alone."""


class Publisher:
    """Publishes to a RabbitMQ, confirmed and within time limits. Serves many threads.

    Args:
        servers: The servers, tried in turn; at least one.

        confirm: Wait for the broker's confirms.

        mandatory: With `confirm`, have the broker return what no queue took.

    Raises:
        MissingDependencyError: pika is not installed.
        ConfigurationError: There is no server.
    """

    def __init__(
        self, servers: Sequence[Server], *, confirm: bool = True, mandatory: bool = True
    ) -> None:
        if not servers:
            raise ConfigurationError("RabbitMQ has no server to publish to: give its address")
        try:
            # Late: pika is an extra, and its absence is told here with the cure.
            from ._connection import Connection
        except ImportError as exc:
            command = install("pika")
            raise MissingDependencyError(f"RabbitMQ needs pika, run: {command}") from exc
        self._new = Connection
        self._servers = tuple(servers)
        self._confirm, self._mandatory = confirm, mandatory
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            self._connected,
            category=category_of,
            address=", ".join(server.address for server in servers),
        )
        self._durable: dict[str, bool] = {}

    def publish(self, messages: Sequence[Message], timeout: float) -> list[Exception | None]:
        """Publish; one answer each, in order. None: confirmed, and in a queue.

        Args:
            messages: Any number of them.

            timeout: Seconds, connecting included; what is left over then is not tried.

        Raises:
            RejectedError: There is no connection: nothing was handed over.
        """
        until = monotonic() + timeout
        answers: list[Exception | None] = []
        with self._pool.lent(timeout) as connection:
            for some in _batches(messages):
                # The first part is tried even so: its own wait ends at the deadline.
                if not connection.usable or (answers and monotonic() >= until):
                    break
                answers += _published(connection, some, until)
            # Kept beyond the connection, which goes back to the pool or ends.
            self._durable.update(connection.durable)
        untried = NotTriedError("the connection failed, or the time was over, before its turn")
        return [*answers, *[untried] * (len(messages) - len(answers))]

    def is_durable(self, message: Message) -> bool:
        """Tell whether a confirmed message survives a restart, as far as is known.

        False where the message is not persistent, or where a queue it was declared with is not
        durable although that was asked for.
        """
        known = self._durable
        return message.is_durable and all(
            known.get(queue.name, queue.is_durable) for queue in message.queues
        )

    def sizes(self, queues: Iterable[str], timeout: float) -> dict[str, int | None]:
        """Return how many messages wait in each queue; None where there is no such queue.

        What a worker holds unsettled is not counted.
        """
        until = monotonic() + timeout
        with self._pool.lent(timeout) as connection:
            return {name: connection.size(name, until) for name in queues}

    def probe(self, timeout: float) -> None:
        """Reach the server, or raise."""
        with self._pool.lent(timeout):
            pass

    def check(self, queues: Iterable[Queue], timeout: float) -> list[str]:
        """Return what the broker's settings make of durable messages: a sentence per problem.

        Reads queues that exist (durable, expiry, limits that drop messages) and the broker's
        alarms. Policies are no part of AMQP: only the management interface shows those.
        """
        until = monotonic() + timeout
        with self._pool.lent(timeout) as connection:
            return problems_of(connection, queues, until)

    def close(self) -> None:
        """Close what is idle, and keep no connection any more."""
        self._pool.close()

    def _connected(self, timeout: float) -> Connection:
        return first_of(self._servers, self._open, timeout, name=lambda server: server.address)

    def _open(self, server: Server, timeout: float) -> Connection:
        until = monotonic() + timeout
        return self._new(server, until, confirm=self._confirm, mandatory=self._mandatory)


def _batches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Cut into pieces that are published together, each within both limits."""
    some: list[Message] = []
    size = 0
    for message in messages:
        # A message that is larger than the limit goes alone, never nowhere.
        if some and (len(some) >= BATCH_SIZE or size + len(message.data) > BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(message)
        size += len(message.data)
    if some:
        yield some


def _published(
    connection: Connection, messages: Sequence[Message], until: float
) -> list[Exception | None]:
    """Publish; what came back is tried once more, its queue declared again."""
    answers = connection.publish(messages, until)
    returned = [n for n, each in enumerate(answers) if isinstance(each, ReturnedError)]
    if returned and connection.usable:
        # Returned: the queue was deleted since it was declared here, so that this cures it.
        connection.forget_queues()
        again = connection.publish([messages[n] for n in returned], until)
        for position, answer in zip(returned, again, strict=True):
            answers[position] = answer
    return answers
