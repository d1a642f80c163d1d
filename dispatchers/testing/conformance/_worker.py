"""`WorkerConformance`: the suite for a backend that brings a worker of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import accumulate
from time import monotonic, sleep
from typing import NoReturn

import pytest

from dispatchers import BaseDispatcher, DeadLetter, Worker
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from . import _tools
from ._suite import Suite
from ._tools import send

__all__ = ["FullStore", "WorkerConformance"]

FULL = f"{__name__}:FullStore"
"""The option `dead_letters` of cases whose letters cannot be stored."""
TWICE = 2
LONG = 60.0
"""Seconds of grace that no case needs."""


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
def working(harness: Harness, dispatcher: BaseDispatcher, **options: object) -> Generator[Running]:
    """A worker at work, stopped at the end of the block at the latest."""
    worker = harness.make_worker(dispatcher, **{"grace": LONG, **options})
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


@pytest.mark.dispatchers_unchecked
class WorkerConformance(Suite):
    """Rules of a worker, beside those of its dispatcher; `Harness.make_worker` makes it.

    ::

        class TestAcmeWorker(WorkerConformance):
            @pytest.fixture
            def harness(self, tmp_path: Path) -> AcmeHarness:
                return AcmeHarness(tmp_path)
    """

    def test_work_that_comes_is_run(self, harness: Harness, journal: Journal) -> None:
        """C9: a worker runs what waits and what comes later, settles it, and ends with 0."""
        dispatcher = harness.dispatcher()

        send(dispatcher, journal, "first").raise_for_error()
        with working(harness, dispatcher) as worker:
            until(lambda: journal.texts == ["first"])
            send(dispatcher, journal, "second").raise_for_error()
            until(lambda: journal.texts == ["first", "second"])
            code = worker.stopped()

        assert code == 0
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_draining_ends(self, harness: Harness, journal: Journal) -> None:
        """C9: with `drain` a worker runs all that is due, and ends by itself with 0."""
        dispatcher = harness.dispatcher()
        for number in range(3):
            send(dispatcher, journal, str(number)).raise_for_error()

        with working(harness, dispatcher, drain=True) as worker:
            code = worker.ended()

        assert code == 0
        assert sorted(journal.texts) == ["0", "1", "2"]

    def test_so_many_runs_go_at_once(self, harness: Harness, journal: Journal) -> None:
        """C8: with a concurrency of two, two runs go at once, and a third waits for them."""
        dispatcher = harness.dispatcher()
        for _ in range(3):
            tasks.linger.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher, concurrency=TWICE):
            until(lambda: journal.texts.count("began") >= TWICE)
            journal.release()
            until(lambda: journal.texts.count("ended") > TWICE)

        steps = (1 if text == "began" else -1 for text in journal.texts)
        assert max(accumulate(steps)) == TWICE

    def test_only_its_queues_are_served(self, harness: Harness, journal: Journal) -> None:
        """C6: a worker of named queues leaves the work of others."""
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.queues:
            pytest.skip(f"{dispatcher.name} has no queues, and says so")
        for queue in ("theirs", "ours"):
            note = tasks.note.options(dispatcher=dispatcher, queue=queue)
            note.dispatch(journal.path, queue).raise_for_error()

        with working(harness, dispatcher, queues=("ours",), drain=True) as worker:
            worker.ended()

        assert journal.texts == ["ours"]

    def test_what_runs_is_finished(self, harness: Harness, journal: Journal) -> None:
        """C8: at a stop handlers see `should_stop`, and what ends within the grace counts."""
        dispatcher = harness.dispatcher()
        tasks.stay.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher) as worker:
            until(lambda: journal.texts == ["began"])
            code = worker.stopped()

        assert (code, journal.texts) == (0, ["began", "ended"])
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_what_runs_beyond_the_grace_comes_again(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: after the grace work is given back at once, as the same attempt; the code is 1."""
        dispatcher = harness.dispatcher()
        tasks.linger.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher, grace=0.0) as worker:
            until(lambda: journal.texts == ["began"])
            code = worker.stopped()
        with working(harness, dispatcher) as worker:
            until(lambda: journal.texts.count("began") == TWICE)
            journal.release()
            worker.stopped()

        again = [each for each in journal.entries if each.text == "began"][1]
        assert (code, again.attempt, again.deliveries) == (1, 1, 1)

    def test_a_handler_that_exits_ends_its_run_only(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: `SystemExit` does not end the worker; the work is dead after `max_deliveries`."""
        harness.need("dead")
        dispatcher = harness.dispatcher(max_deliveries=2)
        tasks.leave.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher):
            until(lambda: harness.dead(dispatcher))
            send(dispatcher, journal, "last").raise_for_error()
            until(lambda: "last" in journal.texts)

        assert journal.texts == ["leaves", "leaves", "last"]

    def test_work_whose_letter_is_not_stored_is_kept(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: while the store of dead letters fails, failed work stays with the backend."""
        harness.need("received", "dead")
        dispatcher = harness.dispatcher(dead_letters=FULL)
        broken = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
        request = broken.request(journal.path, 100)
        dispatcher.dispatch(request).raise_for_error()

        with working(harness, dispatcher) as worker:
            until(lambda: journal.texts)
            worker.stopped()

        assert [request.id.encode() in body for body in harness.received(dispatcher)] == [True]
