"""Takes work from Redis without a moment in which only the worker knows of it.

kombu's Redis transport pops a message, and notes that it has it with a second command: what is
popped when worker or broker is killed between the two is gone (kombu 5.7, `Channel._brpop_read`).
Here one script does both, and what waits for work takes nothing.
"""

from __future__ import annotations

import logging
from functools import cache
from itertools import product
from queue import Empty
from time import monotonic, sleep, time
from typing import Any

from celery import Celery
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import NoPermissionError, ResponseError

__all__ = ["take_safely"]

log = logging.getLogger("dispatchers")

TAKE = """
for i = 3, #KEYS do
    local raw = redis.call('LINDEX', KEYS[i], -1)
    if raw then
        if ARGV[i] == 'note' then
            local properties = cjson.decode(raw)['properties']
            local tag, info = properties['delivery_tag'], properties['delivery_info']
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
"""Pops the next message, and notes it in the form of kombu's `QoS.append`."""
WAIT = 0.1
"""Seconds of one wait for work. It is for one list; the others are looked at after it."""

PAUSE = 1.0
"""Seconds after an error of the server, before it is asked again."""


def take_safely(app: Celery) -> None:
    """Have the application's consumers in this process take their work from Redis by script."""
    plain = app.connection_for_read

    def connection_for_read(*args: Any, **kwargs: Any) -> Any:
        connection = plain(*args, **kwargs)
        connection.transport_cls = _taking(connection.get_transport_cls())
        return connection

    app.connection_for_read = connection_for_read


@cache
def _taking(base: Any) -> Any:
    """A kombu transport for Redis, whose channels take by script."""
    channel = type("Channel", (_Taking, base.Channel), {})
    return type("Transport", (base,), {"Channel": channel})


_Laid: Any = object  # over a class that is known at run time


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
        self._send("EVAL", TAKE, len(keys), *prefixed, time(), "", *notes)

    def _wait(self) -> None:
        """Answered when the first list has something: it is moved to where it was."""
        self._waiting = True
        self._send("BLMOVE", self._first, self._first, "RIGHT", "RIGHT", WAIT)

    def _send(self, *command: Any) -> None:
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
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
        self._queue_cycle.rotate(self._asked[index])
        self.connection._deliver(loads(bytes_to_str(raw)), self._asked[index])
        return True

    def _refused(self, exc: ResponseError) -> None:
        """A server that cannot do it at all, or has no memory left now, say."""
        self._plain = isinstance(exc, NoPermissionError) or "unknown command" in str(exc)
        if self._plain:
            log.warning(
                "this Redis lets no worker take work safely (%s): a worker that is killed while"
                " it takes a message loses it; Redis 6.2 with EVAL and BLMOVE allowed cures that",
                exc,
            )
        else:
            log.error("Redis gives no work: %s", exc)
            sleep(PAUSE)

    def _flush_reauth(self) -> None:
        """Kombu 5.7 hands new credentials to a connection that waits for no answer."""
        if flush := getattr(self, "_flush_brpop_reauth", None):
            flush()
