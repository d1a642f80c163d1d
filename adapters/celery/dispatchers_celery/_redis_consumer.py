"""kombu's Redis transport, made safe: for messages that are taken, and for those that wait.

kombu pops a message, and notes that it has it with a second command: what is popped when worker or
broker is killed between the two is gone (kombu 5.7, `Channel._brpop_read`). Here one script does
both, and a worker that waits for work takes nothing. Celery's workers hold delayed messages in
their memory, in front of work that is due; here they wait in a sorted set.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import product
from queue import Empty
from time import monotonic, sleep, time
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.transport import redis as transport
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from dispatchers.delivery import new_id, say
from dispatchers.redis import bounded_connection

from ._message import HOLD

__all__ = ["held_key", "keep_foreign", "move_due", "publishing_transport", "take_safely"]


TAKE = """
for i = 3, #KEYS do
    local raw = redis.call('LINDEX', KEYS[i], -1)
    if raw then
        local is_json, message = pcall(cjson.decode, raw)
        local properties = is_json and type(message) == 'table' and message['properties']
        local info = type(properties) == 'table' and properties['delivery_info']
        local tag = type(info) == 'table' and properties['delivery_tag']
        if type(tag) ~= 'string' or type(info['exchange']) ~= 'string'
            or type(info['routing_key']) ~= 'string' then
            redis.call('LMOVE', KEYS[i], KEYS[i] .. ARGV[2], 'RIGHT', 'LEFT')
            return {-1, KEYS[i] .. ARGV[2]}
        end
        if ARGV[i] == 'note' then
            redis.call('ZADD', KEYS[2], ARGV[1], tag)
            redis.call('HSET', KEYS[1], tag, '[' .. raw .. ',' ..
                cjson.encode(info['exchange']) .. ',' .. cjson.encode(info['routing_key']) .. ']')
        end
        redis.call('RPOP', KEYS[i])
        return {i - 3, raw}
    end
end
return false
"""
"""Pops the next message, and notes it in the form of kombu's `QoS.append`.

What is not a message of kombu's would stop every worker: it is set aside in a list of its own.
"""
MOVE = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, each in ipairs(due) do
    local cut = string.find(each, '\\n', 1, true)
    redis.call('LPUSH', ARGV[3] .. string.sub(each, 1, cut - 1), string.sub(each, cut + 1))
    redis.call('ZREM', KEYS[1], each)
end
return #due
"""
"""Moves messages that are due to the list that each names in front of itself."""
MOVE_SIZE = 500
"""Messages that one call moves: some milliseconds of the server's time."""
FOREIGN = ".foreign"
"""Behind the name of a list: what was in it and is not a message."""
WAIT = 0.1
"""Seconds of one wait for work. It is for one list; the others are looked at after it."""
RETRY_DELAY = 1.0
"""Seconds after an error of the server, before it is asked again."""
TRANSPORTS = {
    "Transport": f"{__name__}:TakingTransport",
    "SentinelTransport": f"{__name__}:TakingSentinelTransport",
}


def take_safely(app: Celery) -> None:
    """Have the application's consumers in this process take their work from Redis by script."""
    plain = app.connection_for_read

    def connection_for_read(*args: Any, **kwargs: Any) -> Any:
        connection = plain(*args, **kwargs)
        # By name: `celery inspect stats` sends it over the wire.
        own = TRANSPORTS.get(connection.get_transport_cls().__name__)
        connection.transport_cls = own or connection.transport_cls
        return connection

    app.connection_for_read = connection_for_read


def publishing_transport(connection: Connection, opened: list[Any], *, bound: bool) -> Any:
    """Return the connection's transport class, for publishing.

    Args:
        connection: kombu's.

        opened: Gets each connection of redis-py that is made: kombu does not close them all.

        bound: Have each keep to `dispatchers.redis.within`.
    """
    base: Any = connection.get_transport_cls()
    # Both names, since kombu chooses between them only when it connects.
    names = ("connection_class", "connection_class_ssl") if bound else ()
    sockets = {name: _noted(getattr(base.Channel, name), opened) for name in names}
    channel = type("Channel", (_Publishing, base.Channel), sockets)
    return type("Transport", (base,), {"Channel": channel})


def _noted(base: Any, opened: list[Any]) -> Any:
    class Noted(bounded_connection(base)):  # type: ignore[misc] # a class made at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            opened.append(self)

    return Noted


def move_due(channel: Any, queues: Iterable[str]) -> None:
    """Move the delayed messages of these queues that are due to where workers take them."""
    prefix = channel.global_keyprefix
    with channel.conn_or_acquire() as client:
        for queue in queues:
            moved = MOVE_SIZE
            # In parts, so that thousands of due messages do not block the server in one script.
            while moved == MOVE_SIZE:
                # Of the base class: kombu's own client would prefix some arguments.
                command = ("EVAL", MOVE, 1, prefix + held_key(queue), time(), MOVE_SIZE, prefix)
                moved = Redis.execute_command(client, *command)


def keep_foreign(message: Any, queue: str) -> None:
    """Keep what is not a message of Celery's in the list of a queue's foreign elements."""
    with message.channel.conn_or_acquire() as client:
        client.lpush(queue + FOREIGN, dumps(message.serializable()))


def held_key(queue: str) -> str:
    """Return the key of the delayed messages of a queue."""
    return f"{queue}.dispatchers-delayed"


_Laid: Any = object  # over a class that is known at run time


class _Holding(_Laid):
    """Laid over kombu's `Channel`, whose `_put` stores a message."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        hold = (message.get("headers") or {}).get(HOLD)
        if not hold:
            super()._put(queue, message, **kwargs)
            return
        name = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        held = {f"{name}\n{dumps(message)}": hold}
        # Into kombu's pipeline, so that delayed and due messages share one round trip.
        if (batch := kwargs.get("_publish_batch")) is not None:
            batch.add("zadd", held_key(queue), held)
            return
        with self.conn_or_acquire() as client:
            client.zadd(held_key(queue), held)

    def delayed(self, queue: str) -> int:
        """Return how many messages of a queue wait for their time."""
        with self.conn_or_acquire() as client:
            key = self.global_keyprefix + held_key(queue)
            found: Any = Redis.execute_command(client, "ZCARD", key)
            return int(found)


class _Publishing(_Holding):
    """Keeps its client: kombu makes one for each message, 60 us of the 250 that one takes (5.7)."""

    _client: Any = None
    # kombu's own lets go of the interpreter for each message, to a loop that has others to make.
    _next_delivery_tag = staticmethod(new_id)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Generator[Any]:
        if client is None:
            if self._client is None or self._client.connection_pool is not self.pool:
                with super().conn_or_acquire() as self._client:
                    pass
            client = self._client
        yield client


class _Taking(_Laid):
    """Laid over kombu's `Channel`, whose `_brpop_start` asks and `_brpop_read` gets an answer."""

    _plain = False  # a server that refuses scripts, or is older than 6.2: kombu's own way
    _waiting = False
    _unnoted: frozenset[str] = frozenset()
    _asked: tuple[str, ...] = ()

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        if no_ack:
            self._unnoted |= {queue}
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._plain:
            super()._brpop_start(timeout)
        # kombu's cycle gives the queues in turn, so that a full one does not starve the others.
        elif queues := self._queue_cycle.consume(len(self.active_queues)):
            self._in_poll = self.client.connection
            self._brpop_sent_at = monotonic()
            self._take(queues)

    def _take(self, queues: list[str]) -> None:
        found = [(self._q_for_pri(q, p), q) for p, q in product(self.priority_steps, queues)]
        self._asked = tuple(queue for _, queue in found)
        notes = ["" if queue in self._unnoted else "note" for queue in self._asked]
        keys = [self.unacked_key, self.unacked_index_key, *(key for key, _ in found)]
        prefixed = [self.global_keyprefix + key for key in keys]
        self._first = prefixed[2]
        self._waiting = False
        self._send("EVAL", TAKE, len(keys), *prefixed, time(), FOREIGN, *notes)

    def _wait(self) -> None:
        """Answered when the first list has something: it is moved to where it was."""
        self._waiting = True
        self._send("BLMOVE", self._first, self._first, "RIGHT", "RIGHT", WAIT)

    def _send(self, *command: Any) -> None:
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> Any:
        if self._plain:
            return bool(super()._brpop_read(**options))
        connection, self._in_poll = self.client.connection, None
        try:
            reply = self.client.parse_response(connection, "EVAL", **options)
        except self.connection_errors:
            connection.disconnect()
            raise
        except ResponseError as exc:
            self._refused(exc)
            raise Empty from exc
        finally:
            self._flush_reauth()
        return self._handle(connection, reply)

    def _handle(self, connection: Any, reply: Any) -> bool:
        if self._waiting:
            raise Empty
        if reply is None:
            self._wait()
            self._in_poll = connection
            raise Empty
        index, raw = reply
        if index < 0:
            self._report_foreign(bytes_to_str(raw))
            raise Empty
        self._queue_cycle.rotate(self._asked[index])
        self.connection._deliver(self._message(raw, self._asked[index]), self._asked[index])
        return True

    def _message(self, raw: Any, queue: str) -> Any:
        """Return a message that can be read; anything else is set aside."""
        message = loads(bytes_to_str(raw))
        try:
            self.Message(message, channel=self)
        except Exception:  # noqa: BLE001 - whatever cannot be decoded
            tag, aside = message["properties"]["delivery_tag"], queue + FOREIGN
            with self.conn_or_acquire() as client:
                client.lpush(aside, raw)
                client.hdel(self.unacked_key, tag)
                client.zrem(self.unacked_index_key, tag)
            self._report_foreign(aside)
            raise Empty from None
        return message

    def _report_foreign(self, aside: str) -> None:
        say(
            logging.ERROR,
            "a queue held something that is not a message of Celery's: it is in %r now",
            aside,
        )

    def _refused(self, exc: ResponseError) -> None:
        """A server that cannot do it at all, or has no memory left now, say."""
        self._plain = isinstance(exc, NoPermissionError) or "unknown command" in str(exc)
        if self._plain:
            say(
                logging.WARNING,
                "this Redis lets no worker take work safely (%s): a worker that is killed while"
                " it takes a message loses it; Redis 6.2 with EVAL and BLMOVE allowed cures that",
                exc,
            )
        else:
            say(logging.ERROR, "Redis gives no work: %s", exc)
            sleep(RETRY_DELAY)

    def _flush_reauth(self) -> None:
        """Kombu 5.7 hands new credentials to a connection that waits for no answer."""
        if flush := getattr(self, "_flush_brpop_reauth", None):
            flush()


class TakingTransport(transport.Transport):
    """kombu's Redis transport, taking by script."""

    class Channel(_Taking, transport.Channel):
        """kombu's channel, taking by script."""


class TakingSentinelTransport(transport.SentinelTransport):
    """kombu's transport for Sentinel, taking by script."""

    class Channel(_Taking, transport.SentinelChannel):
        """kombu's channel, taking by script."""
