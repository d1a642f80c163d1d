"""Tools of the cases of workers: one at work on a thread, and one that is used by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, NoReturn, TypeVar

import pytest

from dispatchers import BaseDispatcher, DeadLetter, Outcome, Worker
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.worker import BaseWorker, Work

from . import _tools

__all__ = [
    "FULL",
    "SETTLED",
    "TWICE",
    "Running",
    "by_hand",
    "held",
    "leased",
    "stays",
    "stepped",
    "taken",
    "until",
    "working",
]

T = TypeVar("T")

FULL = f"{__name__}:FullStore"
"""The option `dead_letters` of cases whose letters cannot be stored."""
TWICE = 2
LONG = 60.0
"""Seconds of grace that no case needs."""
MOMENT = 0.3
"""Seconds in which a worker that is wrong does what it should not."""


class FullStore:
    """A store of dead letters that takes none."""

    def add(self, letter: DeadLetter) -> NoReturn:
        """Refuse a letter."""
        raise OSError("the store is full")


class Running:
    """A worker at work on a thread.

    Args:
        worker: The worker.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._codes: list[int] = []
        # A daemon: a worker that does not stop must not keep the test run from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._codes.append(self._worker.run())

    def join(self) -> None:
        """Wait until the worker has ended."""
        self._thread.join(_tools.PATIENCE)

    def goes_on(self) -> bool:
        """Tell whether the worker is still at work after a moment."""
        self._thread.join(MOMENT)
        return self._thread.is_alive()

    def ended(self) -> int:
        """Wait until the worker has ended by itself, and return its exit code."""
        self.join()
        assert self._codes, "the worker did not end"
        return self._codes[0]

    def stopped(self) -> int:
        """Stop the worker, and return its exit code."""
        self._worker.stop()
        return self.ended()


@contextmanager
def working(
    harness: Harness,
    dispatcher: BaseDispatcher,
    *,
    prepared: Callable[[Worker], object] | None = None,
    **options: object,
) -> Generator[Running]:
    """A worker at work, stopped at the end of the block at the latest."""
    worker = harness.make_worker(dispatcher, **{"grace": LONG, **options})
    if prepared is not None:
        prepared(worker)
    running = Running(worker)
    try:
        yield running
    finally:
        worker.stop()
        running.join()


def until(condition: Callable[[], object]) -> None:
    """Wait for what a worker will do; fails when that does not come to be."""
    end = monotonic() + _tools.PATIENCE
    while not condition():
        assert monotonic() < end, "the worker did not do it"
        sleep(0.005)


def stays(condition: Callable[[], object], seconds: float = MOMENT) -> None:
    """Watch for a while that something stays true."""
    end = monotonic() + seconds
    while monotonic() < end:
        assert condition(), "it did not stay so"
        sleep(0.02)


def held(harness: Harness, dispatcher: BaseDispatcher) -> int:
    """Return how much the backend holds; skips where it cannot be told."""
    harness.need("received")
    return len(harness.received(dispatcher))


def by_hand(harness: Harness, dispatcher: BaseDispatcher, **options: object) -> BaseWorker[Any]:
    """Return a worker whose methods the case calls; skips where it has none of the kit's."""
    worker = harness.make_worker(dispatcher, **options)
    if not isinstance(worker, BaseWorker):
        pytest.skip("the worker does not stand on dispatchers.worker")
    return worker


def taken(worker: BaseWorker[Any]) -> Work[Any]:
    """Wait for work that is due, and take it."""
    # `_due` gives back what came early.
    return _came(lambda: worker._due(0.0))


def stepped(worker: BaseWorker[Any]) -> Outcome:
    """Wait for work that is due, and run it."""
    return _came(worker.step)


def _came(look: Callable[[], T | None]) -> T:
    end = monotonic() + _tools.PATIENCE
    while (found := look()) is None:
        assert monotonic() < end, "the work did not come"
        sleep(0.005)
    return found


def leased(harness: Harness, seconds: float) -> BaseDispatcher:
    """Return a dispatcher with a lease of so many seconds; skips where no lease runs out."""
    options = harness.leased(seconds)
    if options is None:
        pytest.skip("no lease runs out here (`Harness.leased`)")
    return harness.dispatcher(**options)


def _letter(work: Work[Any]) -> DeadLetter:
    return DeadLetter(id=work.id or "id", task=tasks.note.name, reason="permanent", body=work.body)


def _dead_letter(worker: BaseWorker[Any], work: Work[Any]) -> None:
    letter = _letter(work)
    if (store := worker.dispatcher.letters) is not None:  # as the base class does before
        store.add(letter)
    worker._dead_letter(work, letter)


SETTLED: dict[str, Callable[[BaseWorker[Any], Work[Any]], None]] = {
    "_complete": lambda worker, work: worker._complete(work),
    "_retry": lambda worker, work: worker._retry(work, 0.0, TWICE),
    "_give_back": lambda worker, work: worker._give_back(work, 0.0, 0),
    "_dead_letter": _dead_letter,
}
