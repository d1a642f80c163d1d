"""The worker: claims a file, runs the envelope in it, and does what follows."""

from __future__ import annotations

import signal
import threading

from dispatchers import (
    Action,
    BackendOptions,
    Heartbeat,
    Outcome,
    WorkerOptions,
    run_envelope,
    run_settings,
)

from ._spool import Spool, Work

__all__ = ["AcmeWorker"]

IDLE = 0.2
"""Seconds between two looks into a folder where nothing was due."""


class AcmeWorker:
    """Runs the work of one folder, one piece after the other.

    Args:
        spool: The folder.

        backend: The dispatcher's options.

        options: What the command line asks for.
    """

    def __init__(self, spool: Spool, backend: BackendOptions, options: WorkerOptions) -> None:
        self._spool = spool
        self._settings = run_settings(backend)
        self._drain = options.drain
        self._stopping = threading.Event()

    def run(self) -> int:
        """Work until stopped."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        while not self._stopping.is_set():
            if self.step() is None:
                if self._drain:
                    break
                self._stopping.wait(IDLE)
        return 0

    def stop(self) -> None:
        """Finish what runs, then return from `run`."""
        self._stopping.set()

    def step(self) -> Outcome | None:
        """Run the next piece of work; None where nothing is due."""
        work = self._spool.claim()
        if work is None:
            return None
        outcome = run_envelope(
            self._spool.body(work),
            attempt=work.attempt,
            deliveries=work.deliveries,
            heartbeat=Heartbeat(lambda: self._spool.touch(work), self._spool.lease / 3),
            settings=self._settings,
            stopping=self._stopping.is_set,
        )
        self._settle(work, outcome)
        return outcome

    def _settle(self, work: Work, outcome: Outcome) -> None:
        match outcome.action:
            case Action.DONE:
                self._spool.done(work)
            case Action.RETRY:
                self._spool.again(work, outcome.after, attempt=work.attempt + 1)
            case Action.RETURN:
                self._spool.again(work, outcome.after, attempt=work.attempt)
            case Action.DEAD:
                self._spool.bury(work)
