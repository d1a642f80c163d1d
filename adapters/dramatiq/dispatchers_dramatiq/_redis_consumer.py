"""Dramatiq's consumer on Redis: deliveries are counted there, and nothing stays behind.

Redis forgets who had a message when its worker is dead, and counts nothing. What a live worker has
fetched, and has not got because the reply was lost, lies there until that worker ends. And a dead
worker's messages come back when some command happens to look for them, one in a thousand.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import redis
from dramatiq import Message
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed

from dispatchers.delivery import say

from ._consumer import TaskConsumer, Unsettled
from ._context import Context
from ._message import is_sound

COUNT_TTL = 8 * 86400
"""Seconds that counts outlive the last delivery: longer than any delay."""
MIN_INTERVAL, MAX_INTERVAL = 0.5, 15.0
"""Seconds between two searches for what dead workers have left."""
STOPPING_INTERVAL = 0.05
"""Seconds between two turns of a consumer that fetches nothing any more, and stays alive."""
FETCH_SIZE = 1000
"""Delayed messages that are fetched at once, however many are held already."""


class RedisUnsettled(Unsettled):
    """Messages that this process received, on whichever connection."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: deque[Any] = deque()
        """Messages that are not counted yet."""
        self.ready: deque[Any] = deque()
        """Messages to be handed out."""
        self.settled: deque[str] = deque()
        """Keys whose count may go."""
        self.searched = 0.0
        """When the last search for lost messages was, on the monotonic clock."""


class RedisConsumer(TaskConsumer):
    """A consumer of one queue on Redis.

    Args:
        inner: Dramatiq's.

        name: The name of the queue.

        context: Shared with the other consumers.

        unsettled: What an earlier consumer of this process left.

        broker: Dramatiq's.
    """

    unsettled: RedisUnsettled
    private_parts = ("prefetch", "message_cache", "queued_message_ids")

    def __init__(
        self, inner: Any, name: str, context: Context, unsettled: RedisUnsettled, *, broker: Any
    ) -> None:
        super().__init__(inner, name, context, unsettled)
        self._broker = broker
        self._is_delayed = self.name.endswith(".DQ")
        self._messages = f"{broker.namespace}:{self.name}.msgs"
        self._counts = f"{broker.namespace}:{self.name}.dispatchers"
        self._interval = min(max(broker.heartbeat_timeout / 4000, MIN_INTERVAL), MAX_INTERVAL)
        self.unsettled.searched = 0.0

    def _taken(self) -> Any:
        unsettled = self.unsettled
        try:
            self._search_lost()
            if self.context.stopping.is_set():
                time.sleep(STOPPING_INTERVAL)
                return None
            if not (unsettled.ready or unsettled.fetched):
                self._fetch()
            if unsettled.fetched:
                self._count()
        except redis.RedisError as exc:
            raise ConnectionClosed(exc) from None
        return unsettled.ready.popleft() if unsettled.ready else None

    def _fetch(self) -> None:
        """Take all that one command brings."""
        if self._is_delayed:  # what is far away may not keep out what is due before
            self.inner.prefetch = self.inner.outstanding_message_count + FETCH_SIZE
        message = self._next()
        while message is not None:
            self.unsettled.held.add(self._key(message))
            self.unsettled.fetched.append(message)
            message = self._next() if self.inner.message_cache else None

    def _next(self) -> Any:
        """Return Dramatiq's next message; the foreign ones are left to the next search."""
        while True:
            try:
                message = next(self.inner)
                if message is None or isinstance(message.options["redis_message_id"], str):
                    return message
            except (redis.RedisError, ConnectionClosed):
                raise
            except Exception as exc:  # noqa: BLE001 - another program's data, which may be anything
                say(logging.DEBUG, "no message of Dramatiq's: %s", type(exc).__name__)
            self.unsettled.searched = 0.0
            if not self.inner.message_cache:
                return None

    def _count(self) -> None:
        """Count in one round trip for all of them, and drop the counts of what is settled."""
        unsettled = self.unsettled
        runs = [] if self._is_delayed else [m for m in unsettled.fetched if self._is_counted(m)]
        counts: Iterable[int] = ()
        if runs:
            with self._broker.client.pipeline(transaction=False) as pipe:
                for message in runs:
                    pipe.hincrby(self._counts, self._key(message), 1)
                # A hash without an end would grow by the work of workers that died.
                pipe.expire(self._counts, COUNT_TTL)
                self._forget_settled(pipe)
                counts = pipe.execute()
        for message, count in zip(runs, counts, strict=False):
            message.earlier = count - 1
        unsettled.ready.extend(unsettled.fetched)
        unsettled.fetched.clear()

    def _is_counted(self, message: Any) -> bool:
        options, name = message.options, message.actor_name
        return isinstance(options, dict) and isinstance(name, str) and self._is_run(message)

    def _forget_settled(self, pipe: Any) -> None:
        settled = self.unsettled.settled
        if gone := [settled.popleft() for _ in range(len(settled))]:
            pipe.hdel(self._counts, *gone)

    def _earlier(self, message: Any) -> int:
        return int(getattr(message, "earlier", 0))

    def _search_lost(self) -> None:
        """Take back what dead workers had, and what this one was given and never got."""
        if time.monotonic() - self.unsettled.searched < self._interval:
            return
        broker = self._broker
        broker.scripts["dispatch"](
            args=[
                "qsize",
                current_millis(),
                self.name,
                broker.broker_id,
                broker.heartbeat_timeout,
                broker.dead_message_ttl,
                1,  # with maintenance
                broker._max_unpack_size(),
            ],
            keys=[broker.namespace],
        )
        given = f"{broker.namespace}:__acks__.{broker.broker_id}.{self.name}"
        # What the server says that this process has, and it does not know: a reply was lost.
        lost = {_text(each) for each in broker.client.smembers(given)} - self.unsettled.held
        for key in lost:
            self._recover(key)
        with broker.client.pipeline(transaction=False) as pipe:
            self._forget_settled(pipe)
            pipe.execute()
        self.unsettled.searched = time.monotonic()

    def _recover(self, key: str) -> None:
        """Give back what was lost; dead-letter what another program wrote."""
        data = self._broker.client.hget(self._messages, key)
        try:
            message = None if data is None else Message.decode(data)
            foreign = message is not None and not (
                is_sound(message, self.name) and message.options["redis_message_id"] == key
            )
        except Exception:  # noqa: BLE001 - another program's data, which may be anything
            foreign = True
        if foreign:
            say(
                logging.ERROR,
                "queue %r holds a message that is not Dramatiq's: set aside",
                self.name,
            )
            self._broker.do_nack(self.name, key)
        else:
            self._broker.do_requeue(self.name, key)

    def _key(self, message: Any) -> str:
        return str(message.options["redis_message_id"])

    def _settle(self, message: Any, settle: Callable[[Any], None]) -> None:
        try:
            super()._settle(message, settle)
        except redis.RedisError as exc:
            raise ConnectionClosed(exc) from None
        if message.received is not None and not getattr(message, "back", False):
            self.unsettled.settled.append(self._key(message))

    def _give_back(self, message: Any) -> None:
        self.inner.queued_message_ids.discard(message.message_id)
        self.inner.requeue([message])

    def requeue(self, messages: Iterable[Any]) -> None:
        """Give back what was not begun: the worker stops. It does not count as a delivery."""
        kept, self.unsettled.kept = self.unsettled.kept, []
        own = self.unsettled
        found = (m for m in (*messages, *kept) if getattr(m, "unsettled", None) is own)
        try:
            while some := list(islice(found, FETCH_SIZE)):
                self._return_all(some)
        except redis.RedisError as exc:
            raise ConnectionClosed(exc) from None

    def _return_all(self, messages: Sequence[Any]) -> None:
        self.inner.requeue(messages)
        for message in messages:
            self.inner.queued_message_ids.discard(message.message_id)
            self.unsettled.held.discard(self._key(message))
        # Also what was counted and not handed out yet, when the worker was told to stop.
        counted = [message for message in messages if hasattr(message, "earlier")]
        with self._broker.client.pipeline(transaction=False) as pipe:
            for message in counted:
                # Counted when it was fetched; work that never began was not delivered (C10).
                pipe.hincrby(self._counts, self._key(message), -1)
            pipe.execute()

    def close(self) -> None:
        """Give back what was not handed out, if the worker stops."""
        if self.context.stopping.is_set():
            unsettled = self.unsettled
            waiting = [*unsettled.ready, *unsettled.fetched, *(e[2] for e in unsettled.delayed)]
            for kept in (unsettled.ready, unsettled.fetched, unsettled.delayed):
                kept.clear()
            for message in waiting:
                message.unsettled = unsettled
                message.received = getattr(message, "received", None)
            self.requeue(waiting)
        super().close()


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
