"""RQ's workers, made to take work under a lease: nothing is lost with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from types import FrameType
from typing import TYPE_CHECKING, Any

import rq
from redis import Redis
from redis.exceptions import RedisError
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import WorkerStatus

from dispatchers.redis import within

from ._keys import OURS, queue_key
from ._runs import bury_stopped, run_taken
from ._taken import Leases, Taken

if TYPE_CHECKING:
    from ._dispatcher import RQDispatcher

__all__ = ["HorseWorker", "SimpleWorker"]

IDLE = 0.5
"""Seconds that an idle worker waits at most before it looks after leases and its end again."""
SHORT = 0.1
"""The same for each of several queues: Redis waits for one list without taking from it."""
PAUSE = 1.0
"""Seconds between two tries with a server that does not answer."""
BEAT = 10.0
"""Seconds between an idle worker's heartbeats; RQ forgets a worker after some minutes."""
AnyWorker: Any = object
"""What stands behind `_Leasing` in a class that it is mixed into."""


class _Leasing(AnyWorker):
    """What both kinds do in RQ's places.

    Args:
        dispatcher: Whose work is run.

        queues: Their names, the most urgent first.

        stopping: Whether it shall end: asked when it is idle, and by `current_run().should_stop`.
    """

    def __init__(
        self,
        dispatcher: RQDispatcher,
        queues: Sequence[str],
        *,
        stopping: Callable[[], bool] = bool,
        **settings: Any,
    ) -> None:
        connection = _own(dispatcher.place)
        super().__init__(list(queues), connection=connection, serializer=JSONSerializer, **settings)
        self.dispatcher = dispatcher
        self.leases = Leases(dispatcher.link, dispatcher.options)
        self.stopping = stopping
        self.job_monitoring_interval = max(1, int(self.leases.interval))
        self.drained = False
        self._names = list(queues)
        self._parent = os.getppid()
        self._beaten = monotonic()

    _stopped_job_id: str | None
    _state: str

    def register_birth(self) -> None:
        """As RQ does, and say whose it is."""
        super().register_birth()
        self.connection.hset(self.key, OURS, 1)

    # Taking.

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Any, Any] | None:
        """Take a job under a lease, where RQ pops it; None where the worker shall end."""
        since = monotonic()
        while not self._ends():
            try:
                self.leases.observe(self._names)
                found = self.leases.take(self._names, self.name)
                if isinstance(found, Taken):
                    return self._job(found)
                if timeout is None and self._is_drained(found):
                    self.drained = True
                    return None
                self._rest(IDLE if found is None else min(found, IDLE))
            except (RedisError, OSError) as exc:
                self._complain(exc)
                sleep(PAUSE)
            if max_idle_time is not None and monotonic() - since > max_idle_time:
                return None
        return None

    @property
    def ended_well(self) -> bool:
        """Whether it ended because it should; RQ's ends without a word when Redis fails it."""
        return self.drained or self._ends()

    def _ends(self) -> bool:
        """It was told to, or whoever started it is gone."""
        return self._stop_requested or self.stopping() or os.getppid() != self._parent

    def _is_drained(self, wait: float | None) -> bool:
        return wait is None and self.leases.under_way(self._names) == 0

    def _rest(self, seconds: float) -> None:
        """Wait until there may be something: nothing is taken out of the list by that."""
        if monotonic() - self._beaten > BEAT:
            self._beaten = monotonic()
            self.heartbeat()
        if len(self._names) > 1:
            self._names_in_turn.append(self._names_in_turn.pop(0))
            seconds = min(seconds, SHORT)
        list_ = queue_key(self._names_in_turn[0])
        seconds = max(seconds, 0.01)  # for Redis, 0 is for ever
        with within(seconds + self.dispatcher.options.deadline):
            self.dispatcher.link.client.blmove(list_, list_, seconds, "LEFT", "LEFT")

    def _complain(self, exc: Exception) -> None:
        """Redis does not answer; RQ's workers wait for it."""
        self.log.error("worker %s: Redis does not answer: %s", self.name, type(exc).__name__)

    def _job(self, taken: Taken) -> tuple[Any, Any]:
        """RQ's objects for what was taken."""
        queue = self._queues_by_name[taken.queue]
        job = self.job_class(taken.id, connection=self.connection, serializer=self.serializer)
        job.restore(dict(taken.fields))
        job.taken = taken
        return job, queue

    # Running.

    def execute_job(self, job: Any, queue: Any) -> None:
        """As RQ does, and the lease ends with it."""
        try:
            super().execute_job(job, queue)
        except BaseException:  # a cold shutdown: the job was interrupted
            self.leases.settle(job.taken, "lost")
            raise
        if not job.taken.is_ours:
            self.leases.settle(job.taken, "release")

    def prepare_execution(self, job: Any) -> Any:
        """What RQ's tools show; of ours the rest was done when it was taken."""
        if not job.taken.is_ours:
            return super().prepare_execution(job)
        self._state = WorkerStatus.BUSY
        shown = {"state": self._state, "current_job": job.id}
        self.connection.hset(self.key, mapping=shown)
        return None

    def perform_job(self, job: Any, queue: Any) -> bool:
        """Run it here: one of ours by the core, one of RQ's own by RQ."""
        if not job.taken.is_ours:
            with self.leases.renewing(job.taken):
                return bool(super().perform_job(job, queue))
        return run_taken(job.taken, self.leases, self.dispatcher, self.stopping).ok

    def handle_job_failure(
        self, job: Any, queue: Any, started_job_registry: Any = None, exc_string: str = ""
    ) -> None:
        """Of ours: its process has died, or RQ's tools have stopped it."""
        if not job.taken.is_ours:
            super().handle_job_failure(job, queue, started_job_registry, exc_string)
        elif self._stopped_job_id == job.id:
            self._stopped_job_id = None
            bury_stopped(job.taken, self.leases, self.dispatcher)
        else:
            self.leases.settle(job.taken, "lost")

    # Stopping.

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Finish what runs; nothing is raised here: what is taken must not be forgotten."""
        self._shutdown_requested_date = now()
        signal.signal(signal.SIGINT, self.request_force_stop)
        signal.signal(signal.SIGTERM, self.request_force_stop)
        if self.stopping():  # it knew, and its time is over
            self._end_now()
        self._stop_requested = True

    def _end_now(self) -> None:
        if self.horse_pid:
            self.kill_horse()
            self.wait_for_horse()
        raise SystemExit

    @property
    def _queues_by_name(self) -> dict[str, Any]:
        return {queue.name: queue for queue in self.queues}

    @property
    def _names_in_turn(self) -> list[str]:
        found: list[str] = self.__dict__.setdefault("_turns", list(self._names))
        return found


class HorseWorker(_Leasing, rq.Worker):
    """RQ's `Worker`: each job runs in a process of its own, and may end with it."""

    def maintain_heartbeats(self, job: Any) -> None:
        """While the process runs: RQ's own signs of life, and the lease's."""
        if job.taken.is_ours:
            self.heartbeat(self.job_monitoring_interval + 60)
        else:
            super().maintain_heartbeats(job)
        try:
            self.leases.renew(job.taken)
            self.leases.observe(self._names)
        except (RedisError, OSError) as exc:
            self._complain(exc)


class SimpleWorker(_Leasing, rq.SimpleWorker):
    """RQ's `SimpleWorker`: jobs run in the worker's own process, which costs less."""


def _own(place: str | Redis) -> Redis:
    """A client for RQ's own bookkeeping; RQ changes its settings, which are not the user's then."""
    if isinstance(place, str):
        return Redis.from_url(place)
    pool = place.connection_pool
    return Redis(
        connection_pool=type(pool)(connection_class=pool.connection_class, **pool.connection_kwargs)
    )
