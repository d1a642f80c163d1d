"""C9 and C10: nothing confirmed is lost; at least once, and once on request."""

from __future__ import annotations

import pytest

from dispatchers import DispatchStatus, ErrorCategory
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import every_way
from ._tools import PATIENCE, arrived, eventually, in_child, run_until, send

__all__ = ["LosesNothing"]


class LosesNothing:
    """C9 and C10, from outside."""

    def test_durable_work_survives_the_death_of_its_process(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: what a process was told to be ACCEPTED is there after its `kill -9`."""
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.durable:
            pytest.skip(f"{dispatcher.name} is not durable, and says so")
        harness.need("processes")

        said = in_child(lambda: _accepted(harness, journal))

        assert said in arrived(harness, dispatcher, journal)

    def test_work_survives_its_worker(self, harness: Harness, journal: Journal) -> None:
        """C9: a worker that dies in a run has settled nothing: the work is delivered again."""
        harness.need("worker", "crash")
        dispatcher = harness.dispatcher()
        response = send(dispatcher, journal).raise_for_error()

        harness.crash(dispatcher)
        run_until(harness, dispatcher, lambda: bool(journal.of(response.request_id)))

        assert len(journal.of(response.request_id)) == 1

    def test_deliveries_are_no_attempts(self, harness: Harness, journal: Journal) -> None:
        """C10: a delivery that ended with its worker counts as a delivery, not as an attempt."""
        harness.need("worker", "crash")
        dispatcher = harness.dispatcher()
        send(dispatcher, journal).raise_for_error()

        harness.crash(dispatcher)
        run_until(harness, dispatcher, lambda: bool(journal.entries))

        # The first delivery wrote nothing: its worker died before the handler did.
        assert [(each.attempt, each.deliveries) for each in journal.entries] == [(1, 2)]

    def test_work_that_kills_its_workers_is_given_up(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: beyond `max_deliveries` the work is dead-lettered, and not run any more."""
        harness.need("worker", "crash", "dead")
        dispatcher = harness.dispatcher(max_deliveries=2)
        request = tasks.note.request(journal.path)
        dispatcher.dispatch(request).raise_for_error()

        for _ in range(2):
            harness.crash(dispatcher)
        run_until(harness, dispatcher, lambda: bool(harness.dead(dispatcher)))

        assert journal.entries == []
        assert len(harness.dead(dispatcher)) == 1
        # By the id in its bytes: how a backend wraps dead letters is its own matter.
        assert request.id.encode() in harness.dead(dispatcher)[0]

    def test_a_key_is_never_refused(self, harness: Harness, journal: Journal) -> None:
        """C10: an idempotency key is carried where the backend does not deduplicate."""
        dispatcher = harness.dispatcher()
        request = tasks.note.options(idempotency_key="a key").request(journal.path)

        answers = every_way(harness, dispatcher, request)

        assert all(answers.values())

    def test_work_with_a_known_key_is_a_duplicate(self, harness: Harness, journal: Journal) -> None:
        """C10: a backend that deduplicates answers DUPLICATE and keeps one; by task and key."""
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.deduplicate:
            pytest.skip(f"{dispatcher.name} does not deduplicate, and says so")
        keyed = {"dispatcher": dispatcher, "idempotency_key": "same", "deduplicate": True}

        # Held, so that a worker that runs by itself cannot finish the first too early.
        answers = [tasks.held.options(**keyed).dispatch(journal.path) for _ in range(2)]  # type: ignore[arg-type]
        # The same key of another task is other work.
        another = tasks.other.options(**keyed).dispatch(journal.path)  # type: ignore[arg-type]
        journal.release()

        assert answers[0].status is DispatchStatus.ACCEPTED
        assert answers[1].status is DispatchStatus.DUPLICATE
        assert another.status is DispatchStatus.ACCEPTED
        ids = [answers[0].request_id, another.request_id]
        assert sorted(arrived(harness, dispatcher, journal, *ids)) == sorted(ids)

    def test_the_same_request_is_a_duplicate(self, harness: Harness, journal: Journal) -> None:
        """C10: without a key the request's id serves: repeating it after UNKNOWN is safe."""
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.deduplicate:
            pytest.skip(f"{dispatcher.name} does not deduplicate, and says so")
        request = tasks.held.options(deduplicate=True).request(journal.path)

        answers = [dispatcher.dispatch(request) for _ in range(2)]
        journal.release()

        assert [answer.status for answer in answers] == ["accepted", "duplicate"]
        assert arrived(harness, dispatcher, journal, request.id) == [request.id]

    def test_a_key_with_other_arguments_is_a_conflict(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: a key stands for one call; other arguments under it are refused, not left out."""
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.deduplicate:
            pytest.skip(f"{dispatcher.name} does not deduplicate, and says so")
        harness.need("received")
        keyed = tasks.note.options(dispatcher=dispatcher, idempotency_key="same", deduplicate=True)

        first = keyed.dispatch(journal.path, "one")
        other = keyed.dispatch(journal.path, "two")
        same = keyed.dispatch(journal.path, "one")

        assert [first.status, other.status, same.status] == ["accepted", "rejected", "duplicate"]
        assert other.error is not None
        assert other.error.category is ErrorCategory.CONFLICT

    def test_a_request_may_be_repeated_after_its_death(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: dead-lettered work lets go of its key: the same request is new work."""
        harness.need("worker", "dead")
        dispatcher = harness.dispatcher()
        request = tasks.fail.options(deduplicate=True).request(journal.path, 100)
        if not dispatcher.capabilities.deduplicate:
            pytest.skip(f"{dispatcher.name} does not deduplicate, and says so")

        dispatcher.dispatch(request).raise_for_error()
        run_until(harness, dispatcher, lambda: bool(harness.dead(dispatcher)))
        before = len(journal.entries)

        # The letter is there before the key is free: a worker that dies between loses neither.
        eventually(lambda: dispatcher.dispatch(request).status is DispatchStatus.ACCEPTED)
        run_until(harness, dispatcher, lambda: len(journal.entries) > before)

    def test_an_idempotency_store_runs_it_once(self, harness: Harness, journal: Journal) -> None:
        """C10: with a store, work that was handed over twice runs once."""
        harness.need("worker")
        dispatcher = harness.dispatcher(idempotency=harness.idempotency)
        # The store may outlive the test: another run must find its key free.
        key = f"once {journal.path}"
        keyed = tasks.note.options(dispatcher=dispatcher, idempotency_key=key)

        first = keyed.dispatch(journal.path, "once").raise_for_error()
        run_until(harness, dispatcher, lambda: bool(journal.texts))
        second = keyed.dispatch(journal.path, "once").raise_for_error()
        # Once this has run, the repetition before it has had its turn.
        last = send(dispatcher, journal, "last").raise_for_error()
        run_until(harness, dispatcher, lambda: "last" in journal.texts)

        assert all([first, second, last])
        assert journal.texts == ["once", "last"]


def _accepted(harness: Harness, journal: Journal) -> str:
    """The id of work that a dispatcher of this process's own was told to be accepted."""
    response = send(harness.make_dispatcher(deadline=PATIENCE), journal)
    return response.request_id if response.ok else repr(response)
