"""One child process as its worker sees it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import IO, TYPE_CHECKING

from dispatchers._config.api import current
from dispatchers._errors import ConfigurationError
from dispatchers._runtime.log_format import format_in_force
from dispatchers.sqlite._records import Job
from dispatchers.sqlite._worker.ipc import ATTEMPT, Frame, Kind, Parser, frame

if TYPE_CHECKING:
    from dispatchers.sqlite._options import SQLiteOptions

__all__ = ["ChildProcess", "setup_frame"]

_ROOT = str(Path(__file__).parents[3])


_BOOT = """\
import sys
sys.path.insert(0, sys.argv.pop())
from dispatchers.sqlite._worker.child import main
main(int(sys.argv.pop()))
"""


READ_SIZE = 1 << 18


# Jobs and bytes that a child has in hand at most, and the longest run time of which it has two.
MAX_JOBS = 200
MAX_BYTES = 16 * 1024 * 1024
SHORT_RUN = 0.1


# How much of the estimated time per job the latest one makes up, and what is there to do for each
# beside its handler: measured for a task that does nothing.
_WEIGHT = 0.2


_BESIDE = 4e-5


# Seconds beyond a time limit after which the process is killed, as an async run ends by itself; and
# before that, in which it may write what the handler has printed.
KILL_DELAY = 0.2
FLUSH_TIME = 0.1


class ChildProcess:
    """One child process: what it was given, and what it says.

    Args:
        setup: The first frame for it.
    """

    def __init__(self, setup: bytes) -> None:
        self.jobs: dict[int, Job] = {}
        self.bytes = 0
        """Size of the envelopes that it has in hand."""
        self.effects: dict[int, bytes] = {}
        self.ready = False
        self.classifying = False
        self.recalled = False
        self.limit_at: float | None = None
        self.overran = False
        self.warned = False
        self.watched = False
        """The worker waits for room in the pipe to it."""
        self.since = monotonic()
        self._per_job = 0.01
        self._number = 0
        self._unsent = bytearray()
        self._parser = Parser()
        self._process = _started()
        for pipe in (self.incoming, self.outgoing):
            # One child that does not read must not hold up the worker, which serves all of them.
            os.set_blocking(pipe.fileno(), False)
        self._unsent += setup
        self.flush()

    @property
    def incoming(self) -> IO[bytes]:
        """Return what it writes to."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def outgoing(self) -> IO[bytes]:
        """Return what it reads from."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_unsent(self) -> bool:
        """Tell whether frames wait for room in the pipe."""
        return bool(self._unsent)

    def window(self, ahead: float) -> int:
        """Return how many jobs it should have in hand, by their run time, also of the one it is at.

        Args:
            ahead: Seconds of work that should do until the next are claimed.
        """
        # A run that has lasted longer than the average so far is the better estimate.
        running = monotonic() - self.since if self.jobs else 0.0
        per_job = max(self._per_job, running)
        return 1 if per_job > SHORT_RUN else min(MAX_JOBS, 2 + int(ahead / per_job))

    @property
    def work(self) -> float:
        """Return the seconds that the jobs in hand should take, beside the one that it is at."""
        return (len(self.jobs) - 1) * self._per_job

    @property
    def idle(self) -> bool:
        """Tell whether it is there and has nothing to do."""
        return self.ready and not self.jobs and not self.recalled

    def wants(self, ahead: float) -> int:
        """Return how many more jobs it should have in hand; see `window`."""
        return max(0, self.window(ahead) - len(self.jobs)) if self._is_open else 0

    def takes_more(self, ahead: float) -> bool:
        """Tell whether a job more, beyond the window if need be, would be begun before long."""
        return self._is_open and (not self.jobs or self.window(ahead) > 1)

    @property
    def _is_open(self) -> bool:
        return self.ready and not (self.recalled or self.alone or self.bytes >= MAX_BYTES)

    @property
    def alone(self) -> bool:
        """Tell whether it is at a job that should have no company, as it may end the process."""
        # Such a job is given to an idle child and nothing after it, so that it is the only one.
        # Asked for each job that is given: to look at all in hand took longer than a short run.
        running = self.running
        return self.classifying or (running is not None and running.deliveries > 1)

    @property
    def running(self) -> Job | None:
        """The job that it is at, as far as it has said."""
        return next(iter(self.jobs.values()), None)

    def give(self, job: Job, *, classify: bool = False) -> None:
        """Let it run a job after those it has, or classify a killed run; `flush` sends it."""
        if not self.jobs:
            self.since = monotonic()
        # Four bytes in the frame; 0 stands for no job.
        self._number = self._number % 0xFFFFFFFF + 1
        self.jobs[self._number] = job
        self.bytes += len(job.body)
        self.classifying = classify
        payload = ATTEMPT.pack(job.attempt, job.deliveries) + job.body
        self._unsent += frame(Kind.CLASSIFY if classify else Kind.RUN, self._number, payload)

    def recall(self, *, stop: bool = False) -> None:
        """Ask for the jobs that it has not begun; with `stop`, to end the running one soon too."""
        self.recalled = True
        self._unsent += frame(Kind.STOP if stop else Kind.RECALL)
        self.flush()

    def holds_up(self, seconds: float) -> bool:
        """Tell whether jobs wait behind one that has been running for longer."""
        return len(self.jobs) > 1 and not self.recalled and monotonic() - self.since > seconds

    def warn(self) -> bool:
        """Have it write what was printed, before it is killed; false if it was told before."""
        if self.warned:
            return False
        self.warned = True
        self.limit_at = monotonic() + FLUSH_TIME
        self._unsent += frame(Kind.FLUSH)
        self.flush()
        return True

    def limit_in(self, seconds: float) -> None:
        """The job that it is at has a time limit."""
        self.warned = False
        self.limit_at = monotonic() + seconds + KILL_DELAY

    def frames(self) -> list[Frame] | None:
        """Return what it has said meanwhile; None if it has closed its end."""
        try:
            data = os.read(self.incoming.fileno(), READ_SIZE)
        except BlockingIOError:
            return []
        return list(self._parser.feed(data)) if data else None

    def last_frames(self) -> list[Frame]:
        """Return what it had said before it ended."""
        frames: list[Frame] = []
        while found := self.frames():
            frames += found
        return frames

    def settled(self, number: int, elapsed: float) -> Job | None:
        """A job that it has ended, after `elapsed` seconds in the handler."""
        self.limit_at = None
        self.classifying = False
        self.since = monotonic()
        self._per_job += _WEIGHT * (elapsed + _BESIDE - self._per_job)
        return self.take_back(number)

    def take_back(self, number: int) -> Job | None:
        """Return a job that it has in hand no more; None for one that it had not."""
        job = self.jobs.pop(number, None)
        if job is not None:
            self.bytes -= len(job.body)
        return job

    def flush(self) -> None:
        """Write what waits, as far as the pipe has room."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.outgoing.fileno(), self._unsent)]
        except BlockingIOError:
            return
        except BrokenPipeError:  # its end is noticed elsewhere
            self._unsent.clear()

    def poll(self) -> int | None:
        """Its exit code if it has ended."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, and whatever its handlers have started in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # The group, which the child leads: programs that a handler started end as well.
            os.killpg(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Let it end by itself: it has nothing to do, and gets no more frames."""
        self._unsent += frame(Kind.DISMISS)
        self.flush()
        with contextlib.suppress(BrokenPipeError):
            self.outgoing.close()

    def reap(self, timeout: float) -> int:
        """Wait for its end, kill it if it does not come, and close the pipes; its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self.kill()  # what handlers have left in its process group ends with it
        for pipe in (self.incoming, self.outgoing):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return code


def _started() -> subprocess.Popen[bytes]:
    output = _output()
    try:
        return subprocess.Popen(  # noqa: S603 - this very Python
            # -P keeps the working directory out of sys.path: a `json.py` there would be imported.
            # Not a fork: the worker has threads and an open connection, which no child may inherit.
            [sys.executable, "-P", "-c", _BOOT, str(output), _ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(output,),
            start_new_session=True,  # whatever handlers start is killed with it
        )
    finally:
        os.close(output)


def _output() -> int:
    """Return a descriptor for what handlers print: their standard output is the pipe to here."""
    # Without standard output its number may be another file's: the database's.
    if sys.__stdout__ is not None:
        with contextlib.suppress(OSError):
            return os.dup(1)
    return os.open(os.devnull, os.O_WRONLY)


def setup_frame(options: SQLiteOptions, modules: Iterable[str]) -> bytes:
    """Return the first frame for a child, which makes it like this process."""
    root = logging.getLogger()
    setup = {
        "path": sys.path,
        "modules": list(modules),
        "options": options.model_dump_json(),
        "hooks": configured_hooks(),
        "grace": options.lease / 2,
        "log_level": root.level if root.handlers else None,
        "log_format": format_in_force(),
    }
    return frame(Kind.SETUP, 0, json.dumps(setup).encode())


def configured_hooks() -> list[str]:
    """Return the hook modules of the configuration; without a valid one there are none."""
    try:
        return list(current().hooks)
    except ConfigurationError:
        return []
