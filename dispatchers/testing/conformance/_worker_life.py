"""C6, C8 and C9: a worker that runs, drains and stops."""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import timedelta
from functools import partial
from itertools import accumulate
from pathlib import Path
from uuid import uuid4

import pytest

from dispatchers import BaseDispatcher
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from . import _tools
from ._tools import in_child, send
from ._worker_tools import LONG, TWICE, held, until, working

__all__ = ["Lives"]

MANY = 20
"""Pieces of work for which several threads compete."""
SOON = 0.3
"""Seconds of a delay that a case waits for."""
LATER = timedelta(hours=1)
"""A delay that no case waits for."""


class Lives:
    """C6, C8 and C9, from outside."""

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

    def test_each_piece_is_run_once(self, harness: Harness, journal: Journal) -> None:
        """C9: of several workers with several threads, one gets each piece of work."""
        dispatcher = harness.dispatcher()
        texts = [f"{number:02}" for number in range(MANY)]
        for text in texts:
            send(dispatcher, journal, text).raise_for_error()

        with (
            working(harness, dispatcher, concurrency=TWICE) as one,
            working(harness, dispatcher, concurrency=TWICE) as other,
        ):
            until(lambda: len(journal.texts) >= MANY)
            one.stopped()
            other.stopped()

        assert sorted(journal.texts) == texts

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

    def test_a_busy_worker_holds_nothing_that_it_does_not_run(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: work that waits behind a long run goes to another worker that is free."""
        dispatcher = harness.dispatcher()
        for _ in range(TWICE):
            tasks.linger.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher):
            until(lambda: journal.texts == ["began"])
            with working(harness, dispatcher):
                until(lambda: journal.texts == ["began", "began"])
                journal.release()

    def test_only_its_queues_are_served(self, harness: Harness, journal: Journal) -> None:
        """C6: a worker of named queues leaves the work of others."""
        dispatcher = harness.dispatcher()
        _into_queues(harness, dispatcher, journal, "theirs", "ours")

        with working(harness, dispatcher, queues=("ours",), drain=True) as worker:
            worker.ended()

        assert journal.texts == ["ours"] * 3

    def test_each_of_its_queues_is_served(self, harness: Harness, journal: Journal) -> None:
        """C6: a worker of two queues serves both."""
        dispatcher = harness.dispatcher()
        _into_queues(harness, dispatcher, journal, "theirs", "ours")

        with working(harness, dispatcher, queues=("theirs", "ours"), drain=True) as worker:
            worker.ended()

        assert sorted(journal.texts) == ["ours"] * 3 + ["theirs"] * 3

    def test_all_queues_are_served(self, harness: Harness, journal: Journal) -> None:
        """C6: a worker of no named queues serves all, and one that is first used while it runs."""
        other = harness.queue_name("other")
        dispatcher = harness.dispatcher(queues=[other])
        _need_queues(dispatcher)
        late = tasks.note.options(dispatcher=dispatcher, queue=other)

        with working(harness, dispatcher):
            send(dispatcher, journal, "usual").raise_for_error()
            until(lambda: journal.texts == ["usual"])
            late.dispatch(journal.path, "late").raise_for_error()
            until(lambda: journal.texts == ["usual", "late"])

    def test_delayed_work_is_not_run_early(self, harness: Harness, journal: Journal) -> None:
        """C6: a worker that waits runs work once it is due, and not before."""
        dispatcher = harness.dispatcher()
        _need_delay(dispatcher)
        later = tasks.note.options(dispatcher=dispatcher, delay=timedelta(seconds=SOON))

        with working(harness, dispatcher):
            response = later.dispatch(journal.path, "later").raise_for_error()
            until(lambda: journal.entries)

        # By the clock of requests, from which the instant was reckoned.
        assert response.request is not None
        assert journal.entries[0].at >= response.request.created_at.timestamp() + SOON

    def test_its_modules_are_imported(self, harness: Harness, journal: Journal) -> None:
        """C11: the modules of the options are imported before work is taken."""
        dispatcher, folder = harness.dispatcher(), Path(journal.path).parent
        name = f"dispatchers_testing_{uuid4().hex}"
        (folder / f"{name}.py").write_text(
            "import pathlib\npathlib.Path(__file__ + '.ran').touch()"
        )

        sys.path.insert(0, str(folder))
        try:
            with working(harness, dispatcher, modules=(name,), drain=True) as worker:
                worker.ended()
        finally:
            sys.path.remove(str(folder))

        assert (folder / f"{name}.py.ran").exists()

    # Draining: it ends when nothing that is due waits in its queues, and nothing runs here that may
    # bring more.

    def test_draining_ends(self, harness: Harness, journal: Journal) -> None:
        """C9: with `drain` a worker runs all that is due, and ends by itself with 0."""
        dispatcher = harness.dispatcher()
        for number in range(3):
            send(dispatcher, journal, str(number)).raise_for_error()

        with working(harness, dispatcher, drain=True) as worker:
            code = worker.ended()

        assert code == 0
        assert sorted(journal.texts) == ["0", "1", "2"]

    def test_draining_waits_for_what_runs(self, harness: Harness, journal: Journal) -> None:
        """C9: idle threads do not end a worker while a run may bring more, as by a retry."""
        harness.need("retry")
        dispatcher = harness.dispatcher(**harness.retrying)
        tasks.resume.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher, drain=True, concurrency=TWICE) as worker:
            until(lambda: journal.texts == ["began"])
            went_on = worker.goes_on()
            journal.release()
            code = worker.ended()

        assert went_on
        assert (code, journal.texts) == (0, ["began", "began"])

    def test_draining_and_delayed_work(self, harness: Harness, journal: Journal) -> None:
        """C9: with `drain` delayed work is left, or waited for where `drains_delayed` says so."""
        dispatcher = harness.dispatcher()
        _need_delay(dispatcher)
        longest = min(dispatcher.capabilities.max_delay or LATER, LATER)
        delay = timedelta(seconds=SOON) if harness.drains_delayed else longest
        later = tasks.note.options(dispatcher=dispatcher, delay=delay)
        later.dispatch(journal.path, "later").raise_for_error()

        with working(harness, dispatcher, drain=True) as worker:
            code = worker.ended()

        assert (code, journal.texts) == (0, ["later"] if harness.drains_delayed else [])
        if harness.has("received"):
            assert held(harness, dispatcher) == 1 - len(journal.texts)

    # Stopping.

    def test_what_runs_is_finished(self, harness: Harness, journal: Journal) -> None:
        """C8: at a stop handlers see `should_stop`, and what ends within the grace counts."""
        dispatcher = harness.dispatcher()
        tasks.stay.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher) as worker:
            until(lambda: journal.texts == ["began"])
            code = worker.stopped()

        assert (code, journal.texts) == (0, ["began", "ended"])
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_nothing_is_begun_after_a_stop(self, harness: Harness, journal: Journal) -> None:
        """C8: work that waits when a worker stops is another's, as if it had not been seen."""
        dispatcher = harness.dispatcher()
        tasks.stay.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher) as worker:
            until(lambda: journal.texts == ["began"])
            send(dispatcher, journal, "next").raise_for_error()
            worker.stopped()
            stopped = journal.texts
        with working(harness, dispatcher):
            until(lambda: "next" in journal.texts)

        assert stopped == ["began", "ended"]
        assert (journal.entries[-1].attempt, journal.entries[-1].deliveries) == (1, 1)

    def test_a_stop_before_the_start_counts(self, harness: Harness, journal: Journal) -> None:
        """C8: a worker that was stopped before it ran takes nothing, and ends with 0."""
        dispatcher = harness.dispatcher()
        send(dispatcher, journal).raise_for_error()

        with working(harness, dispatcher, prepared=lambda worker: worker.stop()) as worker:
            code = worker.ended()

        assert (code, journal.texts) == (0, [])

    def test_a_signal_handler_may_stop_it(self, harness: Harness, journal: Journal) -> None:
        """C8: a stop in a signal handler, while the worker waits in the main thread, ends it."""
        assert in_child(lambda: _signalled(harness, journal)) == "0 ['first']"

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

    def test_stops_are_no_deliveries(self, harness: Harness, journal: Journal) -> None:
        """C10: work may be given back more often than `max_deliveries`, and is not dead."""
        dispatcher = harness.dispatcher(max_deliveries=TWICE)
        tasks.linger.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        for number in range(1, TWICE + 2):
            with working(harness, dispatcher, grace=0.0):
                until(partial(_has_begun, journal, number))
        journal.release()

        deliveries = [entry.deliveries for entry in journal.entries if entry.text == "began"]
        assert deliveries == [1] * (TWICE + 1)


def _into_queues(
    harness: Harness, dispatcher: BaseDispatcher, journal: Journal, *queues: str
) -> None:
    """Dispatch work into each queue: alone, awaited, and in a batch."""
    _need_queues(dispatcher)
    for queue in queues:
        note = tasks.note.options(queue=queue)
        dispatcher.dispatch(note.request(journal.path, queue)).raise_for_error()
        awaited = dispatcher.adispatch(note.request(journal.path, queue))
        harness.run_coroutine(awaited).raise_for_error()
    batch = [tasks.note.options(queue=each).request(journal.path, each) for each in queues]
    dispatcher.dispatch_many(batch).raise_for_error()


def _need_queues(dispatcher: BaseDispatcher) -> None:
    if not dispatcher.capabilities.queues:
        pytest.skip(f"{dispatcher.name} has no queues, and says so")


def _has_begun(journal: Journal, times: int) -> bool:
    return journal.texts.count("began") == times


def _need_delay(dispatcher: BaseDispatcher) -> None:
    if not dispatcher.capabilities.delay:
        pytest.skip(f"{dispatcher.name} does not delay, and says so")


def _signalled(harness: Harness, journal: Journal) -> str:
    """The exit code of a worker in this main thread, stopped in a signal handler, and its texts."""
    dispatcher = harness.make_dispatcher(deadline=_tools.PATIENCE)
    worker = harness.make_worker(dispatcher, grace=LONG)
    signal.signal(signal.SIGTERM, lambda _number, _frame: worker.stop())
    send(dispatcher, journal, "first").raise_for_error()

    def kill() -> None:
        until(lambda: journal.texts)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill, daemon=True).start()
    return f"{worker.run()} {journal.texts}"
