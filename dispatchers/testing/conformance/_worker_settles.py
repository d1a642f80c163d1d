"""C9 to C11: what a worker does after a run, and when one does not come to its end."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from dispatchers import DeadLetter, DispatchRequest, Reason
from dispatchers._models.envelope import decode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._tools import long_text, send
from ._worker_tools import FULL, TWICE, by_hand, held, stays, stepped, taken, until, working

__all__ = ["Settles"]

PAUSE = 0.3
"""Seconds until work comes again."""


class Settles:
    """C9 to C11, from outside and by hand."""

    def test_what_runs_is_held_by_the_backend(self, harness: Harness, journal: Journal) -> None:
        """C9: nothing is settled before its run has ended, and no other worker gets it."""
        dispatcher = harness.dispatcher()
        linger = tasks.linger.options(dispatcher=dispatcher)
        response = linger.dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher):
            until(lambda: journal.texts == ["began"])
            with working(harness, dispatcher):
                send(dispatcher, journal, "later").raise_for_error()
                until(lambda: "later" in journal.texts)
            texts = journal.texts
            bodies = harness.received(dispatcher) if harness.has("received") else None
            journal.release()

        assert texts == ["began", "later"]
        assert bodies is None or any(response.request_id.encode() in body for body in bodies)

    # Again.

    def test_retries_are_attempts(self, harness: Harness, journal: Journal) -> None:
        """C9: each retry is the next attempt, on its first delivery; the last one settles it."""
        harness.need("retry")
        dispatcher = harness.dispatcher(**harness.retrying)
        tasks.fail.options(dispatcher=dispatcher).dispatch(journal.path, 2).raise_for_error()

        with working(harness, dispatcher) as worker:
            until(lambda: "succeeded" in journal.texts)
            worker.stopped()

        assert [(each.attempt, each.deliveries) for each in journal.entries] == [
            (1, 1),
            (2, 1),
            (3, 1),
        ]
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_a_retry_waits_for_its_back_off(self, harness: Harness, journal: Journal) -> None:
        """C9: the next attempt comes after the back-off, however idle the worker is."""
        harness.need("retry")
        dispatcher = harness.dispatcher(**harness.retrying)
        again = tasks.wait.options(dispatcher=dispatcher)
        again.dispatch(journal.path, PAUSE).raise_for_error()

        with working(harness, dispatcher):
            until(lambda: len(journal.entries) == TWICE)

        first, second = journal.entries
        assert second.at - first.at >= PAUSE

    def test_work_comes_again_as_it_was_given_back(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: attempts and deliveries are those that the worker says, whatever a broker counts."""
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path, long_text(dispatcher))
        dispatcher.dispatch(request).raise_for_error()
        worker = by_hand(harness, dispatcher)

        first, seen = taken(worker), []
        work = first
        for count in (0, 0, 0, 1, 0):
            seen.append((work.attempt, work.deliveries))
            worker._give_back(work, 0.0, work.deliveries - 1 + count)
            work = taken(worker)
        worker._retry(work, 0.0, 2)
        worker._give_back(retried := taken(worker), 0.0, 0)
        last = taken(worker)
        worker._complete(last)

        assert seen == [(1, 1), (1, 1), (1, 1), (1, 1), (1, 2)]
        assert (work.attempt, work.deliveries) == (1, 2)
        assert (retried.attempt, retried.deliveries) == (2, 1)
        assert (last.attempt, last.deliveries) == (2, 1)
        assert request.id.encode() in last.body
        assert last.body == first.body
        assert worker._due(0.0) is None

    def test_work_stays_in_its_queue(self, harness: Harness, journal: Journal) -> None:
        """C6: what is retried or given back, at once or later, comes again in the same queue."""
        other = harness.queue_name("other")
        dispatcher = harness.dispatcher(queues=[other])
        if not dispatcher.capabilities.queues:
            pytest.skip(f"{dispatcher.name} has no queues, and says so")
        note = tasks.note.options(dispatcher=dispatcher, queue=other)
        note.dispatch(journal.path).raise_for_error()
        worker = by_hand(harness, dispatcher, queues=(other,))

        works = [taken(worker)]
        for after in (0.0, PAUSE):
            worker._retry(works[-1], after, TWICE)
            works.append(taken(worker))
            worker._give_back(works[-1], after, 0)
            works.append(taken(worker))
        worker._complete(works[-1])

        assert {work.queue for work in works} == {works[0].queue}

    @pytest.mark.parametrize("way", ["_give_back", "_retry"])
    def test_work_comes_again_no_earlier(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C9: what is given back or retried in some seconds is not taken before."""
        dispatcher = harness.dispatcher()
        send(dispatcher, journal).raise_for_error()
        worker = by_hand(harness, dispatcher)

        work, since = taken(worker), monotonic()
        getattr(worker, way)(work, PAUSE, 0 if way == "_give_back" else TWICE)
        again = taken(worker)
        # A clock of the backend's own may count in milliseconds.
        assert monotonic() - since >= PAUSE - 0.01

        assert (again.attempt, again.deliveries) == (1 if way == "_give_back" else TWICE, 1)
        worker._complete(again)

    def test_what_is_not_known_here_is_given_back(self, harness: Harness, journal: Journal) -> None:
        """C11: work of an unknown task goes back for a while, and stays undelivered."""
        harness.need("received")
        dispatcher = harness.dispatcher()
        values = {"task": "dispatchers.testing.no_such_task", "payload": {"x": 1}}
        if not dispatcher.dispatch(DispatchRequest.model_validate(values)).ok:
            pytest.skip("the backend refuses it beforehand")
        worker = by_hand(harness, dispatcher)

        outcome = stepped(worker)
        again = worker.step()

        assert (outcome.reason, again) == (Reason.UNKNOWN_TASK, None)
        assert held(harness, dispatcher) == 1

    # Dead letters.

    def test_failed_work_is_dead_once(self, harness: Harness, journal: Journal) -> None:
        """C9: work that failed for good is dead-lettered, settled, and not run again."""
        harness.need("dead")
        dispatcher = harness.dispatcher()
        broken = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
        # Two of one task: neither letter is written over the other.
        failing = [broken.dispatch(journal.path, 100).raise_for_error() for _ in range(TWICE)]

        with working(harness, dispatcher) as worker:
            until(lambda: len(journal.texts) == TWICE and harness.dead(dispatcher))
            send(dispatcher, journal, "last").raise_for_error()
            until(lambda: "last" in journal.texts)
            worker.stopped()

        assert journal.texts == ["failed", "failed", "last"]
        dead = sorted(decode(body).id for body in harness.dead(dispatcher))
        assert dead == sorted(each.request_id for each in failing)
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_dead_letters_are_listed_and_read(self, harness: Harness, journal: Journal) -> None:
        """C9: a configured store has what is needed to look into failed work, and to replay it."""
        place = f"sqlite:{Path(journal.path).with_suffix('.letters')}"
        dispatcher = harness.dispatcher(dead_letters=place)
        broken = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
        response = broken.dispatch(journal.path, 100).raise_for_error()
        letters: Any = dispatcher.letters

        with working(harness, dispatcher) as worker:
            until(letters.list)
            worker.stopped()

        _is_told(letters, response.request_id)
        assert bool(letters.list()[0].queue) is dispatcher.capabilities.queues
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_its_own_dead_letters_are_listed_and_read(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: a backend that keeps dead letters itself keeps them in full."""
        dispatcher = harness.dispatcher()
        letters: Any = dispatcher._dead_letters()
        if letters is None:
            pytest.skip(f"{dispatcher.name} lists no dead letters of its own, and says so")
        broken = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
        response = broken.dispatch(journal.path, 100).raise_for_error()

        with working(harness, dispatcher):
            until(letters.list)

        _is_told(letters, response.request_id)

    def test_a_message_that_is_no_envelope_is_dead(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C11: what cannot be read is a dead letter with an id, and never comes again."""
        place = f"sqlite:{Path(journal.path).with_suffix('.letters')}"
        dispatcher = harness.dispatcher(dead_letters=place)
        worker = by_hand(harness, dispatcher)
        dispatcher._send(tasks.note.request(journal.path), b"no envelope", timeout=5.0)

        outcome = stepped(worker)
        letters: Any = dispatcher.letters
        [letter] = letters.list()

        assert (outcome.reason, letter.reason) == (Reason.NO_ENVELOPE, "no_envelope")
        assert letter.id
        assert letter.body == b"no envelope"
        assert not harness.has("received") or harness.received(dispatcher) == []

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

    def test_a_dead_letter_frees_its_key(self, harness: Harness, journal: Journal) -> None:
        """C10: work that is dead lets go of its key: a repetition is new work, and runs."""
        harness.need("dead")
        deduplicates = harness.make_dispatcher().capabilities.deduplicate
        store = {} if deduplicates else {"idempotency": harness.idempotency}
        dispatcher = harness.dispatcher(**store)
        broken = tasks.fail.options(
            dispatcher=dispatcher,
            max_attempts=1,
            idempotency_key=f"dead {journal.path}",
            deduplicate=deduplicates,
        )

        with working(harness, dispatcher):
            broken.dispatch(journal.path, 100).raise_for_error()
            until(lambda: harness.dead(dispatcher))
            # The letter is stored first, the work settled then.
            until(lambda: broken.dispatch(journal.path, 100).status == "accepted")
            until(lambda: journal.texts == ["failed", "failed"])

    # Handlers that exit.

    def test_a_handler_that_exits_ends_its_run_only(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: `SystemExit` does not end the worker; the work is dead after `max_deliveries`."""
        _exits(harness, journal, tasks.leave)

    def test_a_handler_that_is_interrupted_ends_its_run_only(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: nor does a `KeyboardInterrupt` that a handler raises."""
        _exits(harness, journal, tasks.interrupt)

    def test_a_late_run_settles_nothing(self, harness: Harness, journal: Journal) -> None:
        """C9: what ends after the grace, while another worker runs the work, does not count."""
        dispatcher = harness.dispatcher()
        tasks.relieve.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher, grace=0.0) as worker:
            until(lambda: journal.texts == ["began"])
            worker.stopped()
        with working(harness, dispatcher) as worker:
            # The first run may be killed at the end of its grace instead.
            until(lambda: journal.texts.count("began") == TWICE)
            if harness.has("received"):
                stays(lambda: held(harness, dispatcher) == 1)
            journal.release()
            worker.stopped()

        assert journal.texts.count("began") == TWICE


def _exits(harness: Harness, journal: Journal, task: Any) -> None:
    harness.need("dead")
    dispatcher = harness.dispatcher(max_deliveries=2)
    task.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

    with working(harness, dispatcher):
        until(lambda: harness.dead(dispatcher))
        send(dispatcher, journal, "last").raise_for_error()
        until(lambda: "last" in journal.texts)

    assert journal.texts == ["leaves", "leaves", "last"]
    assert [each.deliveries for each in journal.entries[:2]] == [1, 2]


def _is_told(letters: Any, request_id: str) -> None:
    """A letter is found in the list and by its id, with what became of the work."""
    [letter] = letters.list()
    read: DeadLetter = letters.get(letter.id)
    assert (letter.id, letter.task) == (request_id, tasks.fail.name)
    assert (read.id, read.reason, read.attempts, read.deliveries) == (
        request_id,
        Reason.EXHAUSTED.value,
        1,
        1,
    )
    assert read.error is not None
    assert request_id.encode() in read.body
