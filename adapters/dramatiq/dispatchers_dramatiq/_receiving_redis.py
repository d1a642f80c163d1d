"""Dramatiq's consumer on Redis: deliveries are counted there, and nothing stays behind.

Redis forgets who had a message when its worker is dead, and counts nothing. What a live worker has
fetched, and has not got because the reply was lost, lies there until that worker ends. And a dead
worker's messages come back when some command happens to look for them, one in a thousand.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import redis
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed

from ._message import is_ours
from ._receiving import Line, Receiving, Source

__all__ = ["RedisLine", "RedisReceiving"]

KEPT = 8 * 86400
"""Seconds that counts outlive the last delivery: longer than any delay."""
MOST = 15.0
"""Seconds between two looks for what dead workers have left, at most."""
GLANCE = 0.05
"""Seconds between two turns of a consumer that fetches nothing any more, and stays alive."""
LEAST = 0.5
"""The same, at least."""


class RedisLine(Line):
    """What this process was given; it is bound to the process, and not to a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: deque[Any] = deque()
        """Messages that are not counted yet."""
        self.ready: deque[Any] = deque()
        """Messages to be handed out."""
        self.settled: deque[str] = deque()
        """Keys whose count may go."""
        self.seen_to = 0.0
        """When somebody last looked for what dead workers have left, on the monotonic clock."""


class RedisReceiving(Receiving):
    """A consumer of one queue on Redis.

    Args:
        inner: Dramatiq's.

        source: Gives the dispatcher through which messages are published.

        actors: The names of our actors.

        broker: Dramatiq's.

        stopping: Whether the worker is being stopped.

        line: What an earlier consumer of this process left.
    """

    line: RedisLine

    def __init__(
        self,
        inner: Any,
        source: Source,
        actors: set[str],
        *,
        broker: Any,
        stopping: Callable[[], bool],
        line: RedisLine,
    ) -> None:
        super().__init__(inner, source, actors, float("inf"), stopping, line)
        self._broker = broker
        self._counted = not self.inner.queue_name.endswith(".DQ")
        self._counts = f"{broker.namespace}:{self.inner.queue_name}.dispatchers"
        self._interval = min(max(broker.heartbeat_timeout / 4000, LEAST), MOST)
        self.line.seen_to = 0.0

    def _taken(self) -> Any:
        line = self.line
        try:
            self._see_to_the_dead()
            if self._stopping():
                time.sleep(GLANCE)
                return None
            if not (line.ready or line.fetched):
                self._fetch()
            if line.fetched:
                self._count()
        except redis.RedisError as exc:
            raise ConnectionClosed(exc) from None
        return line.ready.popleft() if line.ready else None

    def _fetch(self) -> None:
        """All that one command brings."""
        message = next(self.inner)
        while message is not None:
            self.line.held.add(self._key(message))
            self.line.fetched.append(message)
            message = next(self.inner) if self.inner.message_cache else None

    def _count(self) -> None:
        """One round trip for all of them, and for those that are settled meanwhile."""
        line = self.line
        ours = [m for m in line.fetched if self._counted and is_ours(m)]
        counts: Iterable[int] = ()
        if ours:
            with self._broker.client.pipeline(transaction=False) as pipe:
                for message in ours:
                    pipe.hincrby(self._counts, self._key(message), 1)
                pipe.expire(self._counts, KEPT)
                self._forget_settled(pipe)
                counts = pipe.execute()
        for message, count in zip(ours, counts, strict=False):
            message.earlier = count - 1
        line.ready.extend(line.fetched)
        line.fetched.clear()

    def _forget_settled(self, pipe: Any) -> None:
        settled = self.line.settled
        if gone := [settled.popleft() for _ in range(len(settled))]:
            pipe.hdel(self._counts, *gone)

    def _earlier(self, message: Any) -> int:
        return int(getattr(message, "earlier", 0))

    def _see_to_the_dead(self) -> None:
        """Take back what dead workers had, and what this one was given and never got."""
        if time.monotonic() - self.line.seen_to < self._interval:
            return
        broker, queue = self._broker, self.inner.queue_name
        broker.scripts["dispatch"](
            args=[
                "qsize",
                current_millis(),
                queue,
                broker.broker_id,
                broker.heartbeat_timeout,
                broker.dead_message_ttl,
                1,  # with maintenance
                broker._max_unpack_size(),
            ],
            keys=[broker.namespace],
        )
        given = broker.client.smembers(f"{broker.namespace}:__acks__.{broker.broker_id}.{queue}")
        lost = {each.decode() for each in given} - self.line.held
        if lost:
            broker.do_requeue(queue, *lost)
        with broker.client.pipeline(transaction=False) as pipe:
            self._forget_settled(pipe)
            pipe.execute()
        self.line.seen_to = time.monotonic()

    def _key(self, message: Any) -> str:
        return str(message.options["redis_message_id"])

    def _settle(self, message: Any, settle: Callable[[Any], None]) -> None:
        try:
            super()._settle(message, settle)
        except redis.RedisError as exc:
            raise ConnectionClosed(exc) from None
        if message.received is not None and not getattr(message, "back", False):
            self.line.settled.append(self._key(message))

    def _give_back(self, message: Any) -> None:
        self.inner.queued_message_ids.discard(message.message_id)
        self.inner.requeue([message])

    def _return(self, message: Any) -> None:
        self._give_back(message)
        self.line.held.discard(self._key(message))
        if self._counted and message.received is not None:
            self._broker.client.hincrby(self._counts, self._key(message), -1)

    def requeue(self, messages: Iterable[Any]) -> None:
        """The worker stops: these were not begun."""
        try:
            super().requeue(messages)
        except redis.RedisError as exc:
            raise ConnectionClosed(exc) from None

    def close(self) -> None:
        """For good, when the worker stops: what was not handed out goes back."""
        if self._stopping():
            line = self.line
            waiting = [*line.ready, *line.fetched, *(each[2] for each in line.delayed)]
            for kept in (line.ready, line.fetched, line.delayed):
                kept.clear()
            for message in waiting:
                message.line, message.received = line, getattr(message, "received", None)
            self.requeue(waiting)
        super().close()
