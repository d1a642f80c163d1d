"""Claims on waiting messages in Redis that are moved to another backend.

A message is claimed as a worker claims it: noted where kombu notes what is unsettled, by the script
that takes it out of its list. kombu's workers give it back once `visibility_timeout` is over, and
the next move much sooner, as it also notes where the message was, and whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from threading import Lock
from time import time
from typing import Any
from uuid import uuid4

from dispatchers.delivery import DeliveryCount
from dispatchers.moving import MARK, Claimed, ListClaims, Signs, Window
from dispatchers.redis import identity
from dispatchers.stores import Watch

from ._broker import Broker
from ._connection import KombuConnection, KombuPublisher
from ._message import OURS, is_ours
from ._redis_consumer import held_key

JSON = "application/json"
LEASE = 20.0
"""Seconds without a sign of life after which another move gives back what this one has claimed."""
CLAIM = """
-- list or sorted set, unsettled messages, their times, claims of moves;
-- now, first element, number of elements, token, header of ours
local of_list = redis.call('TYPE', KEYS[1]).ok == 'list'
local first, last = tonumber(ARGV[2]), ARGV[2] + ARGV[3] - 1
local found = of_list and redis.call('LRANGE', KEYS[1], -1 - last, -1 - first)
    or redis.call('ZRANGE', KEYS[1], first, last)
local reply = {#found}
local function claim(each, raw, due)
    local is_json, message = pcall(cjson.decode, raw)
    local headers = is_json and type(message) == 'table' and message['headers']
    local properties = is_json and type(message) == 'table' and message['properties']
    local info = type(properties) == 'table' and properties['delivery_info']
    local tag = type(info) == 'table' and properties['delivery_tag']
    if type(headers) ~= 'table' or headers[ARGV[5]] == nil or type(tag) ~= 'string'
        or type(info['exchange']) ~= 'string' or type(info['routing_key']) ~= 'string' then
        return
    end
    redis.call('ZADD', KEYS[3], ARGV[1], tag)
    redis.call('HSET', KEYS[2], tag, '[' .. raw .. ',' ..
        cjson.encode(info['exchange']) .. ',' .. cjson.encode(info['routing_key']) .. ']')
    redis.call('HSET', KEYS[4], tag, ARGV[4] .. '\\n' .. due .. '\\n' .. KEYS[1] .. '\\n' .. each)
    if of_list then
        redis.call('LREM', KEYS[1], -1, each)
    else
        redis.call('ZREM', KEYS[1], each)
    end
    reply[#reply + 1] = {tag, raw}
end
for n = 1, #found do
    local each = of_list and found[#found + 1 - n] or found[n]
    if of_list then
        claim(each, each, '')
    else
        local cut = string.find(each, '\\n', 1, true) or 0
        claim(each, string.sub(each, cut + 1), redis.call('ZSCORE', KEYS[1], each))
    end
end
return reply
"""
"""Claims our messages among some elements, those next to be taken first: the number of elements,
then tag and text of each message. Notes them as a worker's `TAKE` does, and where they were."""
SETTLE = """
-- unsettled messages, their times, claims of moves; gone or back, token or '', tag ...
local settled = 0
for n = 3, #ARGV do
    local claim = redis.call('HGET', KEYS[3], ARGV[n])
    if claim and (ARGV[2] == '' or string.sub(claim, 1, #ARGV[2]) == ARGV[2]) then
        redis.call('HDEL', KEYS[3], ARGV[n])
        redis.call('ZREM', KEYS[2], ARGV[n])
        local due, place, each = string.match(claim, '^[^\\n]*\\n([^\\n]*)\\n([^\\n]*)\\n(.*)$')
        if redis.call('HDEL', KEYS[1], ARGV[n]) == 1 and ARGV[1] == 'back' then
            if due == '' then
                redis.call('RPUSH', place, each)
            else
                redis.call('ZADD', place, due, each)
            end
        end
        settled = settled + 1
    end
end
return settled
"""
"""Forgets claimed messages, or puts them back where they were, unless kombu has given them back."""
RENEW = """
-- unsettled messages, their times, claims of moves, signs of life; now, token, sign, tag ...
local alive = ARGV[3] == '1' or redis.call('HEXISTS', KEYS[4], ARGV[2]) == 1
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3])
for n = 4, #ARGV do
    if redis.call('HEXISTS', KEYS[1], ARGV[n]) == 1 then
        redis.call('ZADD', KEYS[2], ARGV[1], ARGV[n])
    else
        alive = false
    end
end
return alive and 1 or 0
"""
"""Renews claims; 0 where some have gone back."""


class RedisClaims(ListClaims[str]):
    """Claims on our messages; those of the application's own tasks are left.

    Args:
        broker: The application's.

        publisher: Lends its connections. Not owned, never closed.

        queues: Their names; None for all that count as declared.
    """

    def __init__(
        self, broker: Broker, publisher: KombuPublisher, queues: Sequence[str] | None
    ) -> None:
        super().__init__()
        # Within the window, in which kombu's workers wait for a sign of life too.
        self.lease = min(LEASE, broker.window / 2)
        self._publisher, self._timeout = publisher, broker.options.deadline
        self._queues = sorted(broker.known) if queues is None else queues
        self._token = f"{MARK}{uuid4().hex}"
        # Claims are renewed by another thread: never in the midst of settling them.
        self._lock = Lock()
        self._held: set[str] = set()
        self._sign = 0
        self._watch, self._signs = Watch(), Signs()

    @property
    def store(self) -> str:
        """Name the server, its database, and the prefix of the application's keys."""
        with self._publisher.lent(self._timeout) as connection:
            prefix = connection.channel.global_keyprefix
            with connection.client(self._timeout) as client:
                return f"celery:{identity(client)}:{prefix}"

    def lists(self) -> Sequence[str]:
        """Return the lists in the order in which workers look, then what is delayed."""
        with self._publisher.lent(self._timeout) as connection:
            channel = connection.channel
            pairs = product(channel.priority_steps, self._queues)
            due: list[str] = [channel._q_for_pri(queue, step) for step, queue in pairs]
        return [*due, *(held_key(queue) for queue in self._queues)]

    def window(self, part: str, start: int, limit: int) -> Window:
        """Claim our messages among the next ones."""
        with self._lock, self._publisher.lent(self._timeout) as connection:
            keys = (part, *self._keys(connection)[:3])
            args = (time(), start, limit, self._token, OURS)
            seen, *found = connection.evaluate(CLAIM, keys, args, self._timeout)
            self._held |= {_text(tag) for tag, _ in found}
            claimed = [_claimed(connection.channel, _text(tag), raw) for tag, raw in found]
        return Window(claimed, seen - len(claimed), seen < limit)

    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        """Delete what was moved; put the rest where it is taken from next, the last one first."""
        with self._lock, self._publisher.lent(self._timeout) as connection:
            tags = {"gone": [each.handle for each in gone]}
            tags["back"] = [each.handle for each in reversed(back)]
            for fate, some in tags.items():
                self._settle(connection, fate, self._token, some)
                self._held.difference_update(some)

    def _settle(
        self, connection: KombuConnection, fate: str, token: str, tags: Sequence[str]
    ) -> None:
        if tags:
            keys = self._keys(connection)[:3]
            connection.evaluate(SETTLE, keys, (fate, token, *tags), self._timeout)

    def recover(self, known: Sequence[Claimed]) -> None:
        """Give back what an answer that was lost has claimed."""
        with self._lock, self._publisher.lent(self._timeout) as connection:
            own = self._claimed_by(connection, self._token)
            self._held = {each.handle for each in known}
            lost = [tag for tag in own if tag not in self._held]
            self._settle(connection, "back", self._token, lost[::-1])

    def _claimed_by(self, connection: KombuConnection, token: str) -> list[str]:
        found = connection.command("HGETALL", self._keys(connection)[2], timeout=self._timeout)
        return [tag for tag, claim in _pairs(found) if claim.startswith(token)]

    def renew(self) -> bool:
        """Renew the claims, and give back those of dead moves."""
        with self._lock, self._publisher.lent(self._timeout) as connection:
            self._sign += 1
            args = (time(), self._token, self._sign, *self._held)
            alive = connection.evaluate(RENEW, self._keys(connection), args, self._timeout)
            if not alive:
                # What is left of them goes back at once, for others to take.
                self._settle(connection, "back", self._token, sorted(self._held))
                self._held.clear()
            self._observe(connection)
        return bool(alive)

    def _observe(self, connection: KombuConnection) -> None:
        for token, sign in self._others(connection).items():
            # Judged by signs and not by clocks: another machine's may be wrong.
            if self._watch.left(token, sign, self.lease) <= 0:
                self._give_back(connection, token)

    def _give_back(self, connection: KombuConnection, token: str) -> None:
        tags = self._claimed_by(connection, token)
        self._settle(connection, "back", token, tags[::-1])
        connection.command("HDEL", self._keys(connection)[3], token, timeout=self._timeout)
        self._watch.forget(token)

    def _others(self, connection: KombuConnection) -> Mapping[str, str]:
        found = connection.command("HGETALL", self._keys(connection)[3], timeout=self._timeout)
        return {token: sign for token, sign in _pairs(found) if token != self._token}

    @property
    def expects(self) -> bool:
        """Tell whether another move that has claimed messages gives no sign of life."""
        with self._publisher.lent(self._timeout) as connection:
            key = self._keys(connection)[2]
            found = connection.command("HVALS", key, timeout=self._timeout)
            holding = {_text(claim).partition("\n")[0] for claim in found}
            others = self._others(connection)
        return self._signs.is_missing({t: others[t] for t in others.keys() & holding})

    def close(self) -> None:
        """Leave no sign of life behind."""
        with self._publisher.lent(self._timeout) as connection:
            key = self._keys(connection)[3]
            connection.command("HDEL", key, self._token, timeout=self._timeout)

    def _keys(self, connection: KombuConnection) -> tuple[str, str, str, str]:
        channel = connection.channel
        claims, signs = (f"{channel.unacked_key}.dispatchers-{end}" for end in ("moved", "moves"))
        return channel.unacked_key, channel.unacked_index_key, claims, signs


def _claimed(channel: Any, tag: str, raw: Any) -> Claimed:
    try:
        message = channel.Message(json.loads(raw), channel=channel, accept={JSON})
        args = message.decode()[0]
        body = str(args[0]).encode()
        counts = DeliveryCount.read(message.headers if is_ours(message.headers) else {})
    except Exception:  # noqa: BLE001 - whatever cannot be decoded is no envelope
        return Claimed(tag, b"")
    return Claimed(tag, body, counts.attempt, counts.due if counts.wait > 0 else None)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _pairs(found: Any) -> list[tuple[str, str]]:
    """Return the fields of a hash; a plain command is answered as a list, or as a dict."""
    pairs = (
        found.items() if isinstance(found, Mapping) else zip(found[::2], found[1::2], strict=True)
    )
    return [(_text(name), _text(value)) for name, value in pairs]
