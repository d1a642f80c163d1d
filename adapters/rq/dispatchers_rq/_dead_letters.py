"""RQ's failed jobs as dead letters: listed, edited and replayed like those of any backend."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from itertools import islice
from typing import Any

from dispatchers import DeadLetter
from dispatchers.redis import within

from ._broker import Broker
from ._message import (
    ATTEMPT,
    BODY,
    LETTER,
    body_of,
    data_of,
    job_key,
    queue_key,
    registry_key,
    stamp,
)
from ._scripts import DELETE

PAGE_SIZE = 100
"""Letters that are read at once."""


class FailedJobs:
    """The dead letters in RQ's `FailedJobRegistry`, without RQ's own jobs.

    Args:
        broker: The Redis and its queues.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._client = broker.client
        self._timeout = broker.options.deadline

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter as a failed job, in Redis when this returns."""
        queue = letter.queue or self._broker.default_queue
        values = {
            "created_at": stamp(),
            "origin": queue,
            "description": letter.task,
            "status": "failed",
            "data": data_of(letter.task, self._broker.options.serializer),
            BODY: letter.body,
            ATTEMPT: letter.attempts,
            LETTER: letter.to_json(body=False),
        }
        ttl = self._broker.options.failure_ttl
        # One transaction: a job without its registry entry would never expire.
        with self._client.pipeline() as pipe, within(self._timeout):
            pipe.hset(job_key(letter.id), mapping=values)
            pipe.expire(job_key(letter.id), ttl)
            pipe.zadd(registry_key("failed", queue), {letter.id: letter.died_at.timestamp() + ttl})
            pipe.sadd("rq:queues", queue_key(queue))
            pipe.execute()

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> builtins.list[DeadLetter]:
        """Return the newest letters first."""
        queues = [queue] if queue else self._broker.queues(timeout=self._timeout)
        wanted = (
            islice((letter for letter in self._of(name) if task in (None, letter.task)), limit)
            for name in queues
        )
        found = [letter for letters in wanted for letter in letters]
        return sorted(found, key=lambda letter: letter.died_at, reverse=True)[:limit]

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002
        """Return one letter; None if there is none of this id."""
        with within(self._timeout):
            fields = self._client.hgetall(job_key(id))
        return _letter(fields)

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        if self.get(id) is None:
            return False
        with within(self._timeout):
            self._client.hset(job_key(id), BODY, body)
        return True

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none, or if it has been dispatched again."""
        with within(self._timeout):
            origin = self._client.hget(job_key(id), "origin")
        if origin is None:
            return False
        return bool(DELETE.run(self._client, (origin, id), timeout=self._timeout))

    def _of(self, queue: str) -> Iterator[DeadLetter]:
        start = 0
        while ids := self._page(queue, start):
            with self._client.pipeline(transaction=False) as pipe, within(self._timeout):
                for number in ids:
                    pipe.hgetall(job_key(number.decode()))
                found = pipe.execute()
            yield from (letter for fields in found if (letter := _letter(fields)) is not None)
            start += PAGE_SIZE

    def _page(self, queue: str, start: int) -> Any:
        with within(self._timeout):
            return self._client.zrevrange(
                registry_key("failed", queue), start, start + PAGE_SIZE - 1
            )


def _letter(fields: dict[bytes, bytes]) -> DeadLetter | None:
    if LETTER.encode() not in fields or fields.get(b"status") != b"failed":
        return None
    return DeadLetter.from_json(fields[LETTER.encode()], body=body_of(fields))
