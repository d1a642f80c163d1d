"""The worker of `memory`: threads that claim, run and settle, and the way to stop them."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

from dispatchers._verdict import type_name
from dispatchers._worker import WorkerOptions

from ._memory_queue import LOOK

if TYPE_CHECKING:
    from .memory import MemoryDispatcher

__all__ = ["MemoryWorker"]

log = logging.getLogger("dispatchers")


class MemoryWorker:
    """Runs the work of one `MemoryDispatcher` in `concurrency` threads."""

    def __init__(self, dispatcher: MemoryDispatcher, options: WorkerOptions) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._stopping = False
        self._over: SimpleQueue[None] = SimpleQueue()

    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT; with `drain`, until nothing waits.

        Returns:
            0; 1 where handlers were still running after the grace.
        """
        for module in self._options.modules:
            importlib.import_module(module)
        threads = [
            threading.Thread(target=self._work, name=f"dispatchers-memory-{n}", daemon=True)
            for n in range(self._options.concurrency)
        ]
        with _signals(self.stop):
            for thread in threads:
                thread.start()
            self._wait()
        return self._joined(threads)

    def _wait(self) -> None:
        """Until `stop`; with looks, as a signal that another thread gets wakes nobody here."""
        while not self._stopping:
            with suppress(Empty):
                self._over.get(timeout=LOOK)

    def stop(self) -> None:
        """Take no more work, finish what runs, then return from `run`."""
        self._stopping = True
        self._over.put(None)

    def _joined(self, threads: list[threading.Thread]) -> int:
        with self._dispatcher._queue.changed:
            self._dispatcher._queue.changed.notify_all()
        until = monotonic() + self._options.grace
        for thread in threads:
            thread.join(max(0.0, until - monotonic()))
        return int(any(thread.is_alive() for thread in threads))

    def _work(self) -> None:
        queue = self._dispatcher._queue
        while not self._stopping:
            if self._step():
                continue
            if self._options.drain and queue.is_empty(self._options.queues):
                self.stop()
            else:
                queue.wait(self._options.queues)

    def _step(self) -> bool:
        delivery = self._dispatcher.claim(self._options.queues)
        if delivery is None:
            return False
        try:
            self._dispatcher.run(delivery, stopping=lambda: self._stopping)
        except BaseException as exc:  # noqa: BLE001 - a task that exits must not end the worker
            log.error(  # noqa: TRY400 - the type says enough
                "run of %s was ended by %s: it is delivered again",
                delivery.work.task, type_name(exc),
                extra={"request_id": delivery.work.id},
            )  # fmt: skip
        return True


@contextmanager
def _signals(stop: Callable[[], None]) -> Generator[None]:
    """Have SIGTERM and SIGINT call `stop`, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
