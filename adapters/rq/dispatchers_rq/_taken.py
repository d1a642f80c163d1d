"""What a worker has taken, and what it does with it, each in one step of the server's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, NamedTuple
from uuid import uuid4

from redis.exceptions import RedisError

from ._keys import leases_key
from ._link import Link
from ._message import ATTEMPT, DELIVERIES, fields, stamp, why
from ._options import RQOptions
from ._scripts import REAP, RENEW, SETTLE, TAKE

__all__ = ["Leases", "Taken"]

log = logging.getLogger("dispatchers")
PAUSE = 0.5
"""Seconds between two tries to settle with a server that does not answer."""


class Taken(NamedTuple):
    """A job that is with a worker."""

    queue: str
    id: str
    token: str
    """Whose lease it is."""
    fields: Mapping[bytes, bytes]
    """The job's hash."""

    @property
    def is_ours(self) -> bool:
        """Whether it holds an envelope."""
        return ATTEMPT.encode() in self.fields

    @property
    def attempt(self) -> int:
        """Which attempt a run of it is."""
        return int(self.fields.get(ATTEMPT.encode(), 1))

    @property
    def deliveries(self) -> int:
        """How often that attempt was taken, this time included."""
        return int(self.fields.get(DELIVERIES.encode(), 1))


class Leases:
    """The queues from a worker's side.

    Args:
        link: The Redis.

        options: The dispatcher's.
    """

    def __init__(self, link: Link, options: RQOptions) -> None:
        self._link = link
        self._options = options
        self._renewals = 0
        self._seen: dict[tuple[str, str], tuple[bytes, float]] = {}
        self._looked = monotonic()

    @property
    def interval(self) -> float:
        """Seconds between two renewals."""
        return self._options.lease / 3

    def take(self, queues: Sequence[str], worker: str) -> Taken | float | None:
        """Take the next job; else the seconds until one is due, None if none is known."""
        token = uuid4().hex
        reply = self._run(TAKE, (token, worker, stamp(), *queues))
        if isinstance(reply, int):
            return None if reply < 0 else reply / 1000
        queue, number, flat = reply
        return Taken(queue.decode(), number.decode(), token, fields(flat))

    def renew(self, taken: Taken) -> bool:
        """Tell observers that its owner lives; false if it is not the owner's any more."""
        self._renewals += 1
        return bool(self._run(RENEW, (taken.queue, taken.id, taken.token, self._renewals)))

    @contextmanager
    def renewing(self, taken: Taken) -> Generator[None]:
        """Renew it on a thread while the block goes on: for what the core does not run."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self.interval):
                try:
                    self.renew(taken)
                except (RedisError, OSError) as exc:
                    log.warning("a lease could not be renewed: %s", type(exc).__name__)

        thread = threading.Thread(target=renew, name="dispatchers-rq-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def settle(self, taken: Taken, action: str, number: float = 0, *values: Any) -> bool:
        """Do what follows from a run; false if the lease was lost, and nothing was done.

        A server that does not answer is asked again for as long as the lease may last: a second
        time it does nothing.
        """
        args = (taken.queue, taken.id, taken.token, action, number, *values)
        until = monotonic() + self._options.lease
        while True:
            try:
                return bool(self._run(SETTLE, args))
            except (RedisError, OSError) as exc:
                if monotonic() > until:
                    log.error("a run could not be settled: %s", type(exc).__name__)  # noqa: TRY400
                    return False
            sleep(PAUSE)

    def observe(self, queues: Sequence[str]) -> None:
        """Give back what nobody has renewed for the length of a lease, by this process's clock."""
        now = monotonic()
        if now - self._looked < self.interval / 2:
            return
        self._looked = now
        for queue in queues:
            self._observe(queue, now)

    def _observe(self, queue: str, now: float) -> None:
        found = self._all(queue)
        for number, held in found.items():
            place = (queue, number.decode())
            before, since = self._seen.get(place, (held, now))
            self._seen[place] = (held, since if held == before else now)
            if held == before and now - since >= self._options.lease:
                self._reap(queue, number, held)
        gone = [p for p in self._seen if p[0] == queue and p[1].encode() not in found]
        for place in gone:
            del self._seen[place]

    def _reap(self, queue: str, number: bytes, held: bytes) -> None:
        most, ttl = self._options.max_deliveries, self._options.failure_ttl
        words = why("it was running each time its worker died")
        if self._run(REAP, (queue, number, held, most, ttl, words, stamp())):
            log.warning("job %s of a dead worker goes back to queue %r", number.decode(), queue)

    def under_way(self, queues: Sequence[str]) -> int:
        """How many jobs of these queues are with workers."""
        return sum(len(self._all(queue)) for queue in queues)

    def _all(self, queue: str) -> dict[bytes, bytes]:
        from dispatchers.redis import within

        with within(self._options.deadline):
            found: dict[bytes, bytes] = self._link.client.hgetall(leases_key(queue))
        return found

    def _run(self, script: Any, args: Sequence[Any]) -> Any:
        return self._link.run(script, args, timeout=self._options.deadline)
