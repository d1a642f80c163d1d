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

from ._frames import ATTEMPT, Frame, Kind, Parser, frame
from ._jobs import Job

if TYPE_CHECKING:
    from dispatchers.backends.sqlite import SQLiteOptions

__all__ = ["ChildProcess", "setup_frame"]

_ROOT = str(Path(__file__).parents[2])
_BOOT = """\
import sys
sys.path.insert(0, sys.argv.pop())
from dispatchers.sqlite._child import main
main()
"""
_CHUNK = 1 << 18

# The most jobs that a child has in hand, and the longest run time of which it has two.
_MOST = 200
_SHORT = 0.1

# How much of the estimated time per job the latest one makes up, and what is there to do for each
# beside its handler: measured for a task that does nothing.
_WEIGHT = 0.2
_BESIDE = 4e-5

# Seconds beyond a time limit after which the process is killed: an async run ends by itself.
_LIMIT_MARGIN = 0.3


class ChildProcess:
    """One child process: what it was given, and what it says.

    Args:
        setup: The first frame for it.
    """

    def __init__(self, setup: bytes) -> None:
        self.jobs: dict[int, Job] = {}
        self.ready = False
        self.judging = False
        self.recalled = False
        self.limit_at: float | None = None
        self.overran = False
        self.since = monotonic()
        self._per_job = 0.01
        self._number = 0
        self._unsent = bytearray()
        self._parser = Parser()
        self._process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-c", _BOOT, _ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # whatever handlers start is killed with it
        )
        for pipe in (self.incoming, self.outgoing):
            os.set_blocking(pipe.fileno(), False)
        self._unsent += setup
        self.flush()

    @property
    def incoming(self) -> IO[bytes]:
        """What it writes to."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def outgoing(self) -> IO[bytes]:
        """What it reads from."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_unsent(self) -> bool:
        """Whether frames wait for room in the pipe."""
        return bool(self._unsent)

    def window(self, ahead: float) -> int:
        """How many jobs it should have in hand, by their run time, also of the one it is at.

        Args:
            ahead: Seconds of work that should do until the next are claimed.
        """
        running = monotonic() - self.since if self.jobs else 0.0
        per_job = max(self._per_job, running)
        return 1 if per_job > _SHORT else min(_MOST, 2 + int(ahead / per_job))

    @property
    def idle(self) -> bool:
        """Whether it is there and has nothing to do."""
        return self.ready and not self.jobs and not self.recalled

    def wants(self, ahead: float) -> int:
        """How many more jobs it should have in hand; see `window`."""
        if not self.ready or self.recalled or self.alone:
            return 0
        return max(0, self.window(ahead) - len(self.jobs))

    @property
    def alone(self) -> bool:
        """Whether it is at a job that should have no company, as it may end the process."""
        return self.judging or any(job.deliveries > 1 for job in self.jobs.values())

    @property
    def running(self) -> Job | None:
        """The job that it is at, as far as it has said."""
        return next(iter(self.jobs.values()), None)

    def give(self, job: Job, *, judge: bool = False) -> None:
        """Let it run a job after those it has, or judge one whose run was killed; then `flush`."""
        if not self.jobs:
            self.since = monotonic()
        self._number = self._number % 0xFFFFFFFF + 1
        self.jobs[self._number] = job
        self.judging = judge
        payload = ATTEMPT.pack(job.attempt, job.deliveries) + job.body
        self._unsent += frame(Kind.JUDGE if judge else Kind.RUN, self._number, payload)

    def recall(self, *, stop: bool = False) -> None:
        """Ask for the jobs that it has not begun; with `stop`, to end the running one soon too."""
        self.recalled = True
        self._unsent += frame(Kind.STOP if stop else Kind.RECALL)
        self.flush()

    def holds_up(self, seconds: float) -> bool:
        """Whether jobs wait behind one that has been running for longer."""
        return len(self.jobs) > 1 and not self.recalled and monotonic() - self.since > seconds

    def limit_in(self, seconds: float) -> None:
        """The job that it is at has a time limit."""
        self.limit_at = monotonic() + seconds + _LIMIT_MARGIN

    def frames(self) -> list[Frame] | None:
        """What it has said meanwhile; None if it has closed its end."""
        try:
            data = os.read(self.incoming.fileno(), _CHUNK)
        except BlockingIOError:
            return []
        return list(self._parser.feed(data)) if data else None

    def last_frames(self) -> list[Frame]:
        """What it had said before it ended."""
        frames: list[Frame] = []
        while found := self.frames():
            frames += found
        return frames

    def settled(self, number: int, elapsed: float) -> Job | None:
        """A job that it has ended, after `elapsed` seconds in the handler."""
        self.limit_at = None
        self.judging = False
        self.since = monotonic()
        self._per_job += _WEIGHT * (elapsed + _BESIDE - self._per_job)
        return self.jobs.pop(number, None)

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
            os.killpg(self.pid, signal.SIGKILL)

    def dismiss(self) -> None:
        """Let it end by itself: it has nothing to do, and hears of nothing more."""
        with contextlib.suppress(BrokenPipeError):
            self.outgoing.close()

    def bury(self, timeout: float) -> int:
        """Wait for its end, kill it if it does not come, and close the pipes; its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        for pipe in (self.incoming, self.outgoing):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return code


def setup_frame(options: SQLiteOptions, modules: Iterable[str]) -> bytes:
    """The first frame for a child: it becomes like this process."""
    root = logging.getLogger()
    formats = [handler.formatter for handler in root.handlers if handler.formatter]
    setup = {
        "path": sys.path,
        "modules": list(modules),
        "options": options.model_dump_json(),
        "patience": options.lease / 2,
        "log_level": root.level if root.handlers else None,
        "log_format": formats[0]._fmt if formats else None,
    }
    return frame(Kind.SETUP, 0, json.dumps(setup).encode())
