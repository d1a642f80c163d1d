"""`dispatchers worker` for RQ: a number of RQ's workers, and one process to supervise them."""

from __future__ import annotations

import inspect
import logging
import mmap
import os
import signal
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

import rq
from redis.exceptions import RedisError
from rq.job import Job
from rq.version import VERSION

from dispatchers import ConfigurationError, WorkerOptions
from dispatchers.delivery import say

POLL_INTERVAL = 0.1
"""Seconds between two looks at the processes."""
RESTART_DELAY = 1.0
"""Seconds before a process is started again that has ended by itself: no hot loop."""
LAST_GRACE = 5.0
"""Seconds that a process gets to give its work back, when its grace is over."""
NO_ANSWER = (
    "a worker of RQ's got no answer from Redis, and asks again: %s; "
    "`dispatchers doctor --contact` says more"
)
MAX_MAJOR = 2
"""The major version of RQ whose `Worker` this one extends."""
GAVE_BACK = 3
"""Exit code of a process that was interrupted in a run when the grace was over."""
STOPPING, HURRYING = 1, 2
"""Values of the byte that all processes share."""
PRIVATE_PARTS: dict[Any, dict[str, tuple[str, ...]]] = {
    rq.Worker: {
        "dequeue_job_and_maintain_ttl": ("timeout", "max_idle_time"),
        "execute_job": ("job", "queue"),
        "prepare_execution": ("job",),
        "prepare_job_execution": ("job",),
        "perform_job": ("job", "queue"),
        "handle_execution_ended": ("job", "queue", "heartbeat_ttl"),
        "handle_exception": ("job",),
        "handle_job_success": ("job", "queue", "started_job_registry"),
        "handle_job_failure": ("job", "queue", "started_job_registry", "exc_string"),
        "maintain_heartbeats": ("job",),
        "monitor_work_horse": ("job", "queue"),
        "handle_work_horse_killed": ("job", "retpid", "ret_val", "rusage"),
        "setup_work_horse_signals": (),
        "request_stop": ("signum", "frame"),
        "request_force_stop": ("signum", "frame"),
        "register_birth": (),
        "kill_horse": (),
        "wait_for_horse": (),
        "heartbeat": ("timeout",),
    },
    Job: {"restore": ("raw_data",), "perform": (), "data": ()},
}
"""Methods of RQ's that are overridden or called, with the parameters that they are given."""


def refuse_unsupported() -> None:
    """Refuse a system or an RQ that these workers cannot work with.

    Raises:
        ConfigurationError: There is no `fork`, or RQ has other parts than are overridden here.
    """
    refuse_platform()
    refuse_unknown(VERSION)


def refuse_unknown(version: str) -> None:
    """Refuse an RQ whose workers do not call what is overridden here.

    Raises:
        ConfigurationError: It is of a later major version, or a method is gone or other.
    """
    cure = "pip install 'rq>=2.6,<3'"
    if int(version.partition(".")[0]) > MAX_MAJOR:
        raise ConfigurationError(f"this worker knows RQ 2, and RQ {version} is installed: {cure}")
    if changed := [
        each for owner, names in PRIVATE_PARTS.items() for each in _changed(owner, names)
    ]:
        raise ConfigurationError(
            f"RQ {version} has other parts than this worker was made for: {', '.join(changed)}; "
            f"install an earlier release: {cure}"
        )


def _changed(owner: Any, names: dict[str, tuple[str, ...]]) -> list[str]:
    return [f"{owner.__name__}.{n}" for n, given in names.items() if not _has(owner, n, given)]


def _has(owner: Any, name: str, given: tuple[str, ...]) -> bool:
    found = getattr(owner, name, None)
    # A property, as `Job.data` is, has no parameters to compare.
    if not inspect.isfunction(found):
        return found is not None
    parameters = inspect.signature(found).parameters
    if any(each.kind is each.VAR_POSITIONAL for each in parameters.values()):
        return True  # wrapped, by Sentry say
    return [each for each in parameters if each in given] == list(given)


def refuse_platform() -> None:
    """Refuse a system without `fork`.

    Raises:
        ConfigurationError: RQ's workers cannot work here.
    """
    if not hasattr(os, "fork") or not hasattr(signal, "SIGALRM"):
        raise ConfigurationError(
            "the worker of backend 'rq' needs os.fork and SIGALRM, which Windows does not have: "
            "run it under WSL or Linux. Dispatching works here"
        )


class RQWorkers:
    """Workers of RQ's in processes of their own.

    Args:
        dispatcher: The dispatcher whose work they run.

        options: The command line's.

    Raises:
        ConfigurationError: This RQ, or this system, works otherwise than the worker was made for.
    """

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        refuse_unsupported()
        self._broker = dispatcher.broker
        self._letters = dispatcher.letters
        self._options = options
        self._state = mmap.mmap(-1, 1)  # shared with the processes, and with theirs
        self._stopped_at: float | None = None
        self._gave_back = False
        self._processes: set[int] = set()

    def run(self) -> int:
        """Work until stopped."""
        queues = self._queues()
        for _ in range(self._options.concurrency if queues else 0):
            self._start(queues)
        while self._processes:
            self._look(queues)
            sleep(POLL_INTERVAL)
        return int(self._gave_back)

    def stop(self) -> None:
        """Finish what runs, then end; what runs longer than the grace goes back."""
        # A repeated stop neither takes back the hurry nor begins the grace anew.
        self._state[0] = max(self._state[0], STOPPING)
        if self._stopped_at is None:
            self._stopped_at = monotonic()

    def stops(self) -> bool:
        """Tell `current_run().should_stop` in any of the processes."""
        return self._state[0] >= STOPPING

    def hurries(self) -> bool:
        """Tell the processes that their grace is over.

        Not by a signal alone: a supervisor that signals the whole process group, or a terminal,
        reaches them directly, while their runs still have time.
        """
        return self._state[0] >= HURRYING

    def _queues(self) -> Sequence[str]:
        """Return the queues, once Redis has told them; none where it is stopped before."""
        if self._options.queues:
            return self._options.queues
        while not self.stops():
            try:
                found: list[str] = self._broker.queues(timeout=self._broker.options.deadline)
            except (RedisError, OSError) as exc:
                # As RQ's workers do that lose it: it may start later than they do.
                say(logging.ERROR, NO_ANSWER, type(exc).__name__)
                sleep(RESTART_DELAY)
            else:
                return found
        return ()

    def _start(self, queues: Sequence[str]) -> None:
        # Forked, not spawned: each has the imported tasks, and shares the byte above.
        process = os.fork()
        if process == 0:
            self._work(queues)
        self._processes.add(process)

    def _work(self, queues: Sequence[str]) -> None:
        """Be a process that works."""
        from ._execution import HorseWorker, SimpleWorker

        # A failure, until the worker has said that it ended well: each way out leads to `_exit`.
        status, worker = 1, None
        try:
            kind = HorseWorker if self._broker.options.horses else SimpleWorker
            worker = kind(
                self._broker,
                queues,
                stopping=self.stops,
                hurrying=self.hurries,
                letters=self._letters,
            )
            worker.work(burst=self._options.drain, logging_level="WARNING")
            status = 0 if worker.ended_well else 1
        except (RedisError, OSError) as exc:
            say(logging.ERROR, NO_ANSWER, type(exc).__name__)
        except Exception as exc:  # noqa: BLE001 - the supervisor starts another process
            say(logging.ERROR, "a worker of RQ's has failed", exc_info=exc)
        finally:
            gave_back = worker is not None and worker.leases.gave_back
            # Not `sys.exit`: exit functions and buffers are the supervisor's.
            os._exit(GAVE_BACK if gave_back else status)

    def _look(self, queues: Sequence[str]) -> None:
        # A sorted copy, as processes are removed and added meanwhile.
        for process in sorted(self._processes):
            # By its id: with -1 it would also collect children that are not ours.
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                self._processes.discard(process)
                self._ended(status, queues)
        self._hurry()

    def _ended(self, status: int, queues: Sequence[str]) -> None:
        """Start another in its place, unless it was to end."""
        code = os.waitstatus_to_exitcode(status)
        if self._stopped_at is not None:
            self._gave_back |= code in {GAVE_BACK, -signal.SIGKILL}
            return
        if self._options.drain and code == 0:
            return
        say(logging.WARNING, "a worker process has ended with %d: another is started", code)
        sleep(RESTART_DELAY)
        self._start(queues)

    def _hurry(self) -> None:
        """Have the work given back when the grace is over; later it comes back with its lease."""
        if self._stopped_at is None:
            return
        over = monotonic() - self._stopped_at - self._options.grace
        if over > LAST_GRACE:
            self._signal(signal.SIGKILL)
        elif over > 0 and not self.hurries():
            # The byte first: by it the handler tells this signal from one that a supervisor sends
            # to all.
            self._state[0] = HURRYING
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            os.kill(process, number)
