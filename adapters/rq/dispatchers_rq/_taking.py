"""The half of a worker of RQ's that takes jobs under a lease, and waits for them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from types import FrameType
from typing import Any

from redis.exceptions import RedisError
from rq.job import Job
from rq.serializers import DefaultSerializer, JSONSerializer
from rq.utils import now

from dispatchers import Action, DeadLetterStore, Outcome, Task, catalogue
from dispatchers.delivery import acted_in_fork, own_handler, say, say_once
from dispatchers.native import former_envelope
from dispatchers.redis import within

from ._broker import Broker
from ._errors import RunFailedError
from ._leases import Leases, Taken
from ._message import ATTEMPT, BODY, LIMIT, MARK, RQ_ID, data_of, json_call, queue_key

MAX_IDLE = 0.5
"""Seconds that an idle worker waits at most before it looks after leases and its end again."""
MAX_IDLE_OF_SEVERAL = 0.1
"""The same for each of several queues: Redis waits for one list without taking from it."""
RETRY_DELAY = 1.0
"""Seconds between two tries with a server that does not answer."""
HEARTBEAT_INTERVAL = 10.0
"""Seconds between an idle worker's heartbeats; RQ forgets a worker after some minutes."""
MAX_ID = 64
"""Characters of a request's id."""
AnyWorker: Any = object
"""The base that `TakingWorker` is mixed into."""


class EnvelopeJob(Job):
    """A job of ours as RQ sees it: the task's name, and no arguments."""

    taken: Taken
    execute: Callable[[], Outcome]

    def perform(self) -> None:
        """Run the envelope and settle the job.

        Raises:
            Exception: The handler's, where it failed permanently: for RQ's exception handlers.
        """
        outcome = self.execute()
        if outcome.action is Action.DEAD:
            raise outcome.exception or RunFailedError(outcome.reason.value)


class TakingWorker(AnyWorker):
    """The part of both kinds of worker that takes jobs, and ends when it is told to.

    Args:
        broker: The Redis and its queues, or a dispatcher that has them.

        queues: Their names, the most urgent first.

        stopping: Tells that it shall end: asked when it is idle, and by
            `current_run().should_stop`.

        hurrying: Tells that running work is to be given up now; without it, a second signal does,
            as with RQ's own workers.

        letters: A store of dead letters beside RQ's failed jobs.
    """

    def __init__(
        self,
        broker: Broker | Any,
        queues: Sequence[str],
        *,
        stopping: Callable[[], bool] = bool,
        hurrying: Callable[[], bool] | None = None,
        letters: DeadLetterStore | None = None,
        **settings: Any,
    ) -> None:
        self.broker: Broker = getattr(broker, "broker", broker)
        super().__init__(
            list(queues),
            connection=self.broker.own_client(),
            serializer=JSONSerializer,
            **settings,
        )
        self.options = self.broker.options
        self.letters = letters
        self.leases = Leases(self.broker.client, self.options)
        self.stopping = stopping
        self.hurrying = hurrying
        # RQ wakes this often while a job runs, which is when its lease is renewed.
        self.job_monitoring_interval = max(1, int(self.leases.interval))
        self.drained = False
        self._names = list(queues)
        self._names_in_turn = list(queues)
        # Remembered: an orphan is adopted by another process, by which it notices.
        self._parent = os.getppid()
        self._process = os.getpid()
        for handler in (self.request_stop, self.request_force_stop):
            own_handler(handler)
        self._beaten = monotonic()

    def register_birth(self) -> None:
        """Register as RQ does, marked as a worker that keeps what it runs."""
        super().register_birth()
        self.connection.hset(self.key, MARK, 1)

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
                    if (job := self._job(found)) is not None:
                        return job
                    continue
                if timeout is None and found is None and not self.leases.under_way(self._names):
                    self.drained = True
                    return None
                self._rest(MAX_IDLE if found is None else min(found, MAX_IDLE))
            except (RedisError, OSError) as exc:
                self._complain(exc)
                sleep(RETRY_DELAY)
            if max_idle_time is not None and monotonic() - since > max_idle_time:
                return None
        return None

    def _rest(self, seconds: float) -> None:
        """Wait until there may be something: nothing is taken out of the list by that."""
        if monotonic() - self._beaten > HEARTBEAT_INTERVAL:
            self._beaten = monotonic()
            self.heartbeat()
        if len(self._names) > 1:
            self._names_in_turn.append(self._names_in_turn.pop(0))
            seconds = min(seconds, MAX_IDLE_OF_SEVERAL)
        # A wait is for one list only; the others are looked at as soon as it is over.
        list_ = queue_key(self._names_in_turn[0])
        seconds = max(seconds, 0.01)  # for Redis, 0 is for ever
        if self.leases.leaves_some:  # they are in the list all the time
            sleep(min(seconds, MAX_IDLE_OF_SEVERAL))
            return
        with within(seconds + self.options.deadline):
            # The same list on both sides: it wakes when something comes, and takes nothing.
            self.broker.client.blmove(list_, list_, seconds, "LEFT", "LEFT")

    def _complain(self, exc: Exception) -> None:
        say_once(self, logging.ERROR, "Redis does not answer a worker: %s", type(exc).__name__)

    def _job(self, taken: Taken) -> tuple[Any, Any] | None:
        """Return RQ's objects for what was taken; None for what RQ itself cannot read."""
        try:
            self._adopt_former(taken)
            job = self._read(taken)
        except (RedisError, OSError):
            raise
        except Exception as exc:  # noqa: BLE001 - a job of any origin
            text = "job %s is left: RQ cannot read it: %s"
            say(logging.WARNING, text, taken.id, type(exc).__name__)
            # RQ's own workers may have the class or serializer that this one lacks.
            self.leases.settle(taken, "leave")
            return None
        return job, next(queue for queue in self.queues if queue.name == taken.queue)

    def _read(self, taken: Taken) -> Any:
        is_json = taken.is_ours or json_call(taken.data) is not None
        serializer = JSONSerializer if is_json else DefaultSerializer
        kind = EnvelopeJob if taken.is_ours else self.job_class
        job = kind(taken.id, connection=self.connection, serializer=serializer)
        job.restore(dict(taken.fields))
        if taken.is_ours:
            job.data = data_of(str(job.description), "json")
            job.retries_left = None  # for workers that cannot read it; attempts are the core's
        job.taken = taken
        return job

    def _adopt_former(self, taken: Taken) -> None:
        """Make a job of a converted task's former life a run of the core."""
        call = None if taken.is_ours else self._call(taken)
        task = None if call is None else called_task(call[0], call[1])
        if task is None or call is None:
            return
        limit = task.time_limit
        fields = {
            "data": data_of(task.name, self.options.serializer),
            "description": task.name,
            "timeout": -1 if limit is None else int(limit) + 1,
            BODY: former_envelope(task, call[2], call[3], id=request_id(taken.id)),
            ATTEMPT: 1,
            **({} if limit is None else {LIMIT: limit}),
        }
        self.leases.adopt(taken, fields)

    def _call(self, taken: Taken) -> Sequence[Any] | None:
        """Return function, instance and arguments; unpickled only where an option says so."""
        call = json_call(taken.data)
        if call is None and self.options.unpickle:
            found: Sequence[Any] = DefaultSerializer.loads(taken.data)
            return found
        return call

    # Ending.

    @property
    def ended_well(self) -> bool:
        """Tell whether it was to end; RQ's worker ends without a word when Redis fails it."""
        return self.drained or self._ends()

    def _ends(self) -> bool:
        """Tell whether it was told to end, or the process that started it is gone."""
        return self._stop_requested or self.stopping() or os.getppid() != self._parent

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Finish what runs; nothing is raised here: what is taken must not be forgotten."""
        if acted_in_fork(self._process, signum):
            return
        self._shutdown_requested_date = now()
        self._stop_requested = True
        if self.hurrying is None:
            # As RQ does: the second signal is the user's way to give up running work.
            signal.signal(signal.SIGINT, self.request_force_stop)
            signal.signal(signal.SIGTERM, self.request_force_stop)
        elif self.hurrying():
            self._end_now()

    def _end_now(self) -> None:
        self.leases.gives_up = True
        if self.horse_pid:
            self.kill_horse()
            self.wait_for_horse()
        # RQ's loop ends by this exception, after its own cleaning up.
        raise SystemExit


def called_task(function: object, instance: object) -> Task[..., Any] | None:
    """Return the task that a job calls, by its path or, as `enqueue(task)` writes it, as it is."""
    if isinstance(instance, Task):
        return instance if function == "__call__" else None
    return task_at(function) if instance is None else None


def task_at(path: object) -> Task[..., Any] | None:
    """Return the task under a job's function path: by name, former name, or where it is written."""
    name = str(path)
    known = catalogue.find(name)
    return known or next((each for each in catalogue.all() if each.origin == name), None)


def request_id(job_id: str) -> str:
    """Return a job's id where a request may have it; empty asks for a new one."""
    return job_id if RQ_ID.fullmatch(job_id) and len(job_id) <= MAX_ID else ""
