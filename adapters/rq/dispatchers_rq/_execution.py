"""RQ's workers, running envelopes by the core.

Ours go through RQ's own `perform_job` as RQ's jobs do, so that tools which wrap it (Sentry's
integration, say) see them; what RQ writes around a run is left out, because the outcome is settled
in one step of the server's.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import rq
from redis.exceptions import RedisError
from rq.worker import WorkerStatus

from dispatchers import Outcome, run_settings
from dispatchers.delivery import flush_output, ignore_signals, process, renewed

from ._errors import RunTimeoutError
from ._leases import Taken
from ._message import LIMIT
from ._taking import TakingWorker

EXTRA_TIME = 0.25
"""Seconds beyond the time limit: the core cancels an async run, and is given the time to."""
SILENT = logging.getLogger("dispatchers.rq.silent")
SILENT.disabled = True
TRACE_HEADERS = ("sentry-trace", "baggage")


class _Running(TakingWorker):
    """The part of both kinds of worker that runs and settles."""

    _stopped_job_id: str | None
    _state: str
    log: logging.Logger

    def execute_job(self, job: Any, queue: Any) -> None:
        """Run as RQ does; the lease ends with it."""
        flush_output()  # else a fork would write it once more
        try:
            super().execute_job(job, queue)
        except BaseException:  # a cold shutdown: the job was interrupted
            self.leases.interrupted(job.taken)
            raise
        if not job.taken.is_ours:
            self.leases.settle(job.taken, "release")

    def prepare_execution(self, job: Any) -> Any:
        """Show RQ's tools what runs; of ours the rest was done when it was taken."""
        if not job.taken.is_ours:
            return super().prepare_execution(job)
        self._state = WorkerStatus.BUSY
        shown = {"state": self._state, "current_job": job.id}
        self.connection.hset(self.key, mapping=shown)
        return None

    def perform_job(self, job: Any, queue: Any) -> bool:
        """Run it here: RQ's own under a lease, ours by the core."""
        try:
            return self._performed(job, queue)
        finally:
            flush_output()  # RQ ends the process without

    def _performed(self, job: Any, queue: Any) -> bool:
        if not job.taken.is_ours:
            with renewed(self.leases.heartbeat(job.taken)):
                return bool(super().perform_job(job, queue))
        # Only in this process: the job's stored meta belongs to its owner.
        job.meta = trace_meta(job.taken.body)
        job.execute = partial(self._run, job.taken)
        return bool(super().perform_job(job, queue))

    def _run(self, taken: Taken) -> Outcome:
        with interrupted_late(taken):
            return process(
                taken,
                run_settings(self.options, interrupts=True),
                letters=self.letters,
                heartbeat=self.leases.heartbeat(taken),
                stopping=self.stopping,
            )

    def prepare_job_execution(self, job: Any, *args: Any, **kwargs: Any) -> None:
        """Leave out what the lease says already."""
        if not job.taken.is_ours:
            super().prepare_job_execution(job, *args, **kwargs)

    def handle_execution_ended(self, job: Any, *args: Any, **kwargs: Any) -> None:
        """Leave out what settling has written."""
        if not job.taken.is_ours:
            super().handle_execution_ended(job, *args, **kwargs)

    def handle_job_success(self, job: Any, queue: Any, *args: Any, **kwargs: Any) -> None:
        """Let jobs begin that depend on this one; the rest is settled."""
        if not job.taken.is_ours:
            super().handle_job_success(job, queue, *args, **kwargs)
        elif job.taken.has_dependents:
            queue.enqueue_dependents(job)

    def handle_exception(self, job: Any, *exc_info: Any) -> None:
        """Call RQ's exception handlers; the core has logged it, without the exception's words."""
        if job.taken.is_ours and not isinstance(exc_info[1], Exception):
            return  # an interruption of the worker itself
        log = self.log
        # RQ logs the traceback with the exception's words, which may quote arguments (C4).
        self.log = SILENT if job.taken.is_ours else log
        try:
            super().handle_exception(job, *exc_info)
        finally:
            self.log = log

    def handle_job_failure(
        self, job: Any, queue: Any, started_job_registry: Any = None, exc_string: str = ""
    ) -> None:
        """Handle the end of ours whose process has died, or which RQ's tools have stopped."""
        if not job.taken.is_ours:
            super().handle_job_failure(job, queue, started_job_registry, exc_string)
        elif job.taken.answer is not None:  # its run has ended here, and is settled
            self.handle_job_success(job, queue)
        elif self._stopped_job_id == job.id:
            self._stopped_job_id = None
            job.taken.stopped(self.letters)
        else:
            self.leases.settle(job.taken, "lost")


class HorseWorker(_Running, rq.Worker):
    """RQ's `Worker`: each job runs in a process of its own, and may end with it."""

    def maintain_heartbeats(self, job: Any) -> None:
        """Give RQ's own signs of life, and renew the lease, while the process runs."""
        if job.taken.is_ours:
            self.heartbeat(self.job_monitoring_interval + 60)
        else:
            super().maintain_heartbeats(job)
        try:
            self.leases.renew(job.taken)
            self.leases.observe(self._names)
        except (RedisError, OSError) as exc:
            self._complain(exc)

    def setup_work_horse_signals(self) -> None:
        """Finish the run when a supervisor signals every process: the worker decides its end."""
        ignore_signals()

    def handle_work_horse_killed(self, job: Any, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """End the processes that a killed run has started; they are in its group."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        with suppress(OSError):
            # RQ makes each of its children the leader of a process group.
            os.killpg(retpid, signal.SIGKILL)


class SimpleWorker(_Running, rq.SimpleWorker):
    """RQ's `SimpleWorker`: jobs run in the worker's own process, which costs less."""


def trace_meta(body: bytes) -> dict[str, Any]:
    """Return what Sentry's integration for RQ looks for in a job: the trace it belongs to."""
    if TRACE_HEADERS[0].encode() not in body:
        return {}
    try:
        headers = json.loads(body).get("headers") or {}
    except (ValueError, AttributeError):
        return {}
    return {"_sentry_trace_headers": {k: headers[k] for k in TRACE_HEADERS if k in headers}}


@contextmanager
def interrupted_late(taken: Taken) -> Generator[None]:
    """Interrupt a run that outlasts its time limit by an exception, as RQ does in its main thread.

    Whatever RQ itself is told to interrupt runs by: a limit of ours may have fractions of seconds.
    """
    found = taken.fields.get(LIMIT.encode())
    if found is None or current_thread() is not main_thread():
        yield
        return
    seconds = float(found) + EXTRA_TIME

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise RunTimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    # A timer and not `alarm`, which takes whole seconds only.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
