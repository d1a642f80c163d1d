"""The worker of `failover`: one process for each member that has a worker."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers._errors import ConfigurationError
from dispatchers._runtime.log import say
from dispatchers._worker.forked import flush_output
from dispatchers._worker.signals import StopFlag, stopped_by_signals

__all__ = ["MembersWorker"]

LOOK = 0.2
"""Seconds between two looks at the processes."""
LATE = 10.0
"""Seconds beyond the grace after which a process that has not ended is killed."""


class MembersWorker:
    """Runs the workers of several dispatchers, each in a process of its own.

    They live and end together: one that ends before it was told to ends the others, so that what
    supervises this process sees it.

    Args:
        dispatchers: Those whose work is run.

        options: The options of the command line, the same for each.

    Raises:
        ConfigurationError: This system cannot fork.
    """

    def __init__(self, dispatchers: Sequence[BaseDispatcher], options: WorkerOptions) -> None:
        if not hasattr(os, "fork"):
            names = ", ".join(each.alias for each in dispatchers)
            raise ConfigurationError(
                f"this system cannot fork: start a worker for each member by itself ({names})"
            )
        self._dispatchers, self._options = dispatchers, options
        self._stopping = StopFlag()
        self._running: dict[int, str] = {}
        self._told: set[int] = set()
        self._failed = False

    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT, or until one of the workers ends.

        Returns:
            0 where each worker ended well after it was told to, or had nothing left to do.
        """
        alive, tied = os.pipe()
        try:
            with stopped_by_signals(self.stop):
                for each in self._dispatchers:
                    self._running[self._started(each, alive, tied)] = each.alias
                os.close(alive)
                if self._stopping.is_set():
                    self.stop()  # those that were started since
                self._watch()
        finally:
            os.close(tied)
        return int(self._failed)

    def stop(self) -> None:
        """Tell each worker to stop. Safe in signal handlers."""
        self._stopping.set()
        # Once: a worker that is told twice gives its runs back and ends at once.
        for pid in self._running.keys() - self._told:
            self._told.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def healthy(self) -> bool:
        """Tell whether each worker's process is there."""
        return len(self._running) == len(self._dispatchers)

    def _started(self, dispatcher: BaseDispatcher, alive: int, tied: int) -> int:
        pid = os.fork()
        if not pid:
            os.close(tied)  # open in the parent alone: its end is the end of all
            _leave(lambda: _work(dispatcher, self._options, alive))
        return pid

    def _watch(self) -> None:
        """Wait for the processes; once told to stop, at most as long as the grace and more."""
        until: float | None = None
        while self._running:
            self._collect()
            if self._stopping.is_set():
                until = until or time.monotonic() + self._options.grace + LATE
                if time.monotonic() > until:
                    self._kill()
                time.sleep(LOOK / 4)
            else:
                self._stopping.wait(LOOK)

    def _collect(self) -> None:
        for pid in tuple(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._ended(self._running.pop(pid), os.waitstatus_to_exitcode(status))

    def _ended(self, alias: str, code: int) -> None:
        stopping = self._stopping.is_set()
        if code == 0 and (self._options.drain or stopping):
            return
        if code == -signal.SIGTERM and stopping:  # told before it had handlers
            return
        self._failed = True
        say(logging.ERROR, "the worker of %r ended with %d: so do the others", alias, code)
        self.stop()

    def _kill(self) -> None:
        for pid in tuple(self._running):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _work(dispatcher: BaseDispatcher, options: WorkerOptions, alive: int) -> int:
    worker = dispatcher._worker(options)

    def end_with_parent() -> None:
        os.read(alive, 1)  # nothing is ever written: it returns when the parent is gone
        worker.stop()

    threading.Thread(target=end_with_parent, name="dispatchers-members", daemon=True).start()
    return worker.run()


def _leave(work: Callable[[], int]) -> None:
    """End this forked process with what `work` returns, whatever happens."""
    code = 1
    try:
        code = work()
    except BaseException as exc:  # noqa: BLE001 - a copy of the parent must not go on as it
        say(logging.ERROR, "a member's worker ended: %s: %s", type(exc).__name__, exc)
    finally:
        flush_output()
        os._exit(code)
