"""Claims on waiting messages in Redis that are moved to another backend.

A move is a worker to Dramatiq's script: it has a name, gives signs of life, and what it has fetched
goes back once they are older than `heartbeat_timeout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

from dramatiq import Message
from dramatiq.common import dq_name

from dispatchers.moving import MARK, Claimed, ListClaims, Signs, Window
from dispatchers.redis import Script, identity, within

from ._connection import RedisPublisher
from ._message import Received, is_ours, is_sound

CLAIM = Script("""
-- list, what this worker has fetched; id ...
local reply = {}
for _, id in ipairs(ARGV) do
    if redis.call('LREM', KEYS[1], 1, id) == 1 then
        redis.call('SADD', KEYS[2], id)
        reply[#reply + 1] = id
    end
end
return reply
""")
"""Fetches messages by their ids, as Dramatiq's script does; returns those that were there."""
SETTLE = Script("""
-- list, what this worker has fetched, messages, deliveries; gone or back, id ...
for n = 2, #ARGV do
    if redis.call('SREM', KEYS[2], ARGV[n]) == 1 then
        if ARGV[1] == 'gone' then
            redis.call('HDEL', KEYS[3], ARGV[n])
            redis.call('HDEL', KEYS[4], ARGV[n])
        elseif redis.call('HEXISTS', KEYS[3], ARGV[n]) == 1 then
            redis.call('LPUSH', KEYS[1], ARGV[n])
        end
    end
end
return 1
""")
"""Acknowledges messages, or puts them to the front; nothing of those that have gone back."""


class Handle(NamedTuple):
    """A fetched message."""

    queue: str
    key: str


class RedisClaims(ListClaims[str]):
    """Claims on our messages; those of Dramatiq's own actors are left.

    Args:
        publisher: Has the client. Not owned, never closed.

        queues: The names of the queues.
    """

    def __init__(self, publisher: RedisPublisher, queues: Sequence[str]) -> None:
        super().__init__()
        self._publisher, self._client = publisher, publisher.client
        self._broker, self._timeout = publisher.broker, publisher.options.deadline
        self.lease = self._broker.heartbeat_timeout / 1000
        self._queues = [*queues, *map(dq_name, queues)]
        self._name = f"{MARK}{uuid4().hex}"
        # Claims are renewed by another thread: never in the midst of settling them.
        self._lock = Lock()
        self._held: set[Handle] = set()
        self._signs = Signs()

    @property
    def store(self) -> str:
        """Name the server, its database, and the namespace of the broker's keys."""
        with within(self._timeout):
            return f"dramatiq:{identity(self._client)}:{self._broker.namespace}"

    def lists(self) -> Sequence[str]:
        """Return the queues, then those of delayed messages."""
        return self._queues

    def window(self, part: str, start: int, limit: int) -> Window:
        """Claim our messages among the next ones."""
        messages = self._key(part, ".msgs")
        with self._lock, within(self._timeout):
            keys = [
                _text(e) for e in self._client.lrange(self._key(part), start, start + limit - 1)
            ]
            found = self._client.hmget(messages, keys) if keys else []
            read = {key: _read(part, key, data) for key, data in zip(keys, found, strict=True)}
            ours = {key: claimed for key, claimed in read.items() if claimed is not None}
            taken = self._take(part, list(ours))
            self._held |= {Handle(part, key) for key in taken}
        return Window([ours[key] for key in taken], len(keys) - len(ours), len(keys) < limit)

    def _take(self, queue: str, keys: Sequence[str]) -> list[str]:
        if not keys:
            return []
        places = (self._key(queue), self._fetched(queue, self._name))
        (reply,) = CLAIM.run_many(self._client, [keys], keys=places)
        return [_text(each) for each in _raised(reply)]

    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        """Acknowledge what was moved; put the rest to the front, the last one first."""
        with self._lock, within(self._timeout):
            self._settle("gone", [each.handle for each in gone])
            self._settle("back", [each.handle for each in reversed(back)])

    def _settle(self, fate: str, handles: Iterable[Handle]) -> None:
        for queue, some in groupby(handles, key=lambda handle: handle.queue):
            own = list(some)
            places = (self._key(queue), self._fetched(queue, self._name), *self._hashes(queue))
            args = (fate, *(handle.key for handle in own))
            (reply,) = SETTLE.run_many(self._client, [args], keys=places)
            _raised(reply)
            self._held.difference_update(own)

    def recover(self, known: Sequence[Claimed]) -> None:
        """Give back what an answer that was lost has fetched."""
        with self._lock, within(self._timeout):
            own = {
                Handle(queue, _text(key))
                for queue in self._queues
                for key in self._client.smembers(self._fetched(queue, self._name))
            }
            self._settle("back", sorted(own - {each.handle for each in known}))

    def renew(self) -> bool:
        """Give a sign of life, and have Dramatiq's script give back what dead workers had."""
        with self._lock, within(self._timeout):
            queues = self._queues
            for reply in self._publisher.maintained(queues, self._name):
                _raised(reply)
            held = sorted(self._held)
            with self._client.pipeline(transaction=False) as pipe:
                for each in held:
                    pipe.sismember(self._fetched(each.queue, self._name), each.key)
                alive = all(pipe.execute())
            if not alive:
                # What is left of it goes back too: it is claimed anew.
                self._settle("back", held)
                self._held.clear()
        return alive

    @property
    def expects(self) -> bool:
        """Tell whether another move that has fetched messages gives no sign of life."""
        with within(self._timeout):
            found = self._client.zrange(
                f"{self._broker.namespace}:__heartbeats__", 0, -1, withscores=True
            )
            signs = {_text(name): sign for name, sign in found}
            others = {n: s for n, s in signs.items() if n != self._name and self._has(n)}
        return self._signs.is_missing(others)

    def _has(self, name: str) -> bool:
        return name.startswith(MARK) and any(
            self._client.exists(self._fetched(queue, name)) for queue in self._queues
        )

    def close(self) -> None:
        """Leave no sign of life behind."""
        with within(self._timeout):
            self._client.zrem(f"{self._broker.namespace}:__heartbeats__", self._name)

    def _key(self, queue: str, end: str = "") -> str:
        return f"{self._broker.namespace}:{queue}{end}"

    def _hashes(self, queue: str) -> tuple[str, str]:
        return self._key(queue, ".msgs"), self._key(queue, ".dispatchers")

    def _fetched(self, queue: str, name: str) -> str:
        return f"{self._broker.namespace}:__acks__.{name}.{queue}"


def _read(queue: str, key: str, data: bytes | None) -> Claimed | None:
    """Return one of our messages; None for any other."""
    try:
        message: Any = None if data is None else Message.decode(data)
        if message is None or not (is_sound(message, queue) and is_ours(message)):
            return None
        received = Received.read(message)
        counts = received.counts
        due = counts.due if counts.wait > 0 else None
        return Claimed(Handle(queue, key), received.envelope(), counts.attempt, due)
    except Exception:  # noqa: BLE001 - another program's data, which may be anything
        return None


def _raised(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
