"""The suite of workers is tested itself: for each case there is a worker that it catches."""

from __future__ import annotations

import inspect
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DeadLetter, WorkerOptions
from dispatchers._worker.settlement import settle
from dispatchers.backends.memory import Delivery
from dispatchers.testing import Journal, WorkerConformance
from dispatchers.testing.conformance import _tools
from dispatchers.worker import BaseWorker, Work

from .reference import ShelfHarness

pytestmark = pytest.mark.dispatchers_unchecked

CASES = sorted(name for name in dir(WorkerConformance) if name.startswith("test_"))


class ShelfWorker(BaseWorker[Delivery]):
    """A sound worker of a shelf."""

    poll = 0.01

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self.shelf = dispatcher

    def _take(self, wait: float) -> Work[Delivery] | None:
        found = self.shelf.claim(self.options.queues)
        if found is None:
            return None
        return Work(found, found.body, found.attempt, found.deliveries, found.id, found.queue)

    def _complete(self, work: Work[Delivery]) -> None:
        self.shelf._queue.finish(work.handle, remember=True)

    def _retry(self, work: Work[Delivery], after: float, attempt: int) -> None:
        self.shelf._queue.back(work.handle, after, attempt=True)

    def _give_back(self, work: Work[Delivery], after: float, deliveries: int) -> None:
        if deliveries == work.deliveries:
            self.shelf.abandon(work.handle)
        else:
            self.shelf._queue.back(work.handle, after)

    def _dead_letter(self, work: Work[Delivery], letter: DeadLetter) -> None:
        if self.dispatcher.letters is None:
            self.shelf._letters.add(letter)
        self.shelf._queue.finish(work.handle, remember=False)


class Unsettled(ShelfWorker):
    """Does not settle what has run."""

    def _complete(self, work: Work[Delivery]) -> None:
        pass


class Endless(ShelfWorker):
    """Knows nothing of `drain`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"drain": False}))


class OneByOne(ShelfWorker):
    """Knows nothing of `concurrency`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"concurrency": 1}))


class AllQueues(ShelfWorker):
    """Knows nothing of `queues`."""

    def __init__(self, dispatcher: Any, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options.model_copy(update={"queues": ()}))


class Alarming(ShelfWorker):
    """Ends with 1 whatever has happened."""

    def run(self) -> int:  # type: ignore[misc]
        return super().run() or 1


class Keeping(ShelfWorker):
    """Keeps what still runs after the grace."""

    def _give_back(self, work: Work[Delivery], after: float, deliveries: int) -> None:
        pass


class Fragile(ShelfWorker):
    """Ends with a handler that exits."""

    def _survived(self, work: Work[Delivery]) -> None:
        try:
            self._worked(work)
        except SystemExit:
            self.stop()


class Careless(ShelfWorker):
    """Settles failed work although its letter is nowhere."""

    def _settled(self, delivery: Any, outcome: Any) -> None:
        settle(delivery, outcome)


BROKEN: dict[str, type[ShelfWorker]] = {
    "test_work_that_comes_is_run": Unsettled,
    "test_draining_ends": Endless,
    "test_so_many_runs_go_at_once": OneByOne,
    "test_only_its_queues_are_served": AllQueues,
    "test_what_runs_is_finished": Alarming,
    "test_what_runs_beyond_the_grace_comes_again": Keeping,
    "test_a_handler_that_exits_ends_its_run_only": Fragile,
    "test_work_whose_letter_is_not_stored_is_kept": Careless,
}


class WorkerHarness(ShelfHarness):
    """Makes workers of one class; what they hold is not settled."""

    def __init__(self, worker: type[ShelfWorker] = ShelfWorker) -> None:
        super().__init__()
        self.worker = worker

    def make_worker(self, dispatcher: Any, **options: Any) -> ShelfWorker:
        return self.worker(dispatcher, WorkerOptions(**options))

    def received(self, dispatcher: Any) -> list[bytes]:
        held = [delivery.body for delivery in tuple(dispatcher._queue._claimed)]
        return [*super().received(dispatcher), *held]


class TestShelfWorker(WorkerConformance):
    """A sound worker passes."""

    @pytest.fixture
    def harness(self) -> WorkerHarness:
        return WorkerHarness()


@pytest.mark.parametrize("case", CASES)
def test_a_broken_worker_is_caught(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case fails for the worker that breaks its rule."""
    monkeypatch.setattr(_tools, "PATIENCE", 1.0)
    harness, journal = WorkerHarness(BROKEN[case]), Journal(tmp_path / "journal")

    try:
        with pytest.raises(AssertionError):
            getattr(WorkerConformance(), case)(harness, journal)
    finally:
        journal.release()
        harness.end()
        for thread in threading.enumerate():
            if thread.name.startswith("dispatchers-worker-"):
                thread.join(10)


def test_every_case_has_a_broken_worker() -> None:
    """A case that nothing can fail proves nothing."""
    assert sorted(BROKEN) == CASES


@pytest.mark.parametrize("case", CASES)
def test_every_case_says_its_rule(case: str) -> None:
    """A case's docstring begins with the number of the rule that it judges."""
    doc = inspect.getdoc(getattr(WorkerConformance, case)) or ""

    assert re.match(r"C\d+: [a-zA-Z`].*\.$", doc, re.DOTALL), doc
