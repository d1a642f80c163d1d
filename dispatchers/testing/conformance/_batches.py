"""C1 to C4 for `dispatch_many`: one answer each, in order; and C8: sync and async agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    ErrorCategory,
)
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import every_way
from ._options import SHORT, TICK, far_within
from ._tools import arrived, refused_with, run_until, send, told

__all__ = ["AnswersEach"]

Many = Callable[[Harness, BaseDispatcher, Iterable[Any]], DispatchResponses]


def _sync(
    harness: Harness, dispatcher: BaseDispatcher, requests: Iterable[Any]
) -> DispatchResponses:
    del harness
    return dispatcher.dispatch_many(requests)


def _awaited(
    harness: Harness, dispatcher: BaseDispatcher, requests: Iterable[Any]
) -> DispatchResponses:
    return harness.run_coroutine(dispatcher.adispatch_many(requests))


ORDERED = 10
"""Pieces of work whose order is no accident."""
WAYS: dict[str, Many] = {"dispatch_many": _sync, "adispatch_many": _awaited}


class AnswersEach:
    """Batches, from outside."""

    @pytest.mark.parametrize("way", WAYS)
    def test_a_batch_answers_each_in_order(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C3: one response for each request, in their order, and the work is there."""
        dispatcher = harness.dispatcher()
        requests = [tasks.note.request(journal.path, str(number)) for number in range(20)]

        # An iterator: a batch that looks at its requests twice would find nothing the second time.
        responses = WAYS[way](harness, dispatcher, iter(requests))

        assert [each.request_id for each in responses] == [each.id for each in requests]
        assert responses.ok
        if harness.has("received") or harness.has("worker"):
            ids = {each.id for each in requests}
            assert ids <= set(arrived(harness, dispatcher, journal, *ids))

    @pytest.mark.parametrize("way", WAYS)
    def test_one_bad_item_spoils_no_other(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C1: what cannot be handed over is answered in its place, the rest is handed over."""
        dispatcher = harness.dispatcher()
        good = [tasks.note.request(journal.path) for _ in range(2)]

        responses = WAYS[way](harness, dispatcher, [good[0], "no request", good[1]])

        assert [each.ok for each in responses] == [True, False, True]
        refused_with(responses[1], ErrorCategory.INVALID)
        assert list(responses.failed) == [responses[1]]

    @pytest.mark.parametrize("way", WAYS)
    def test_an_empty_batch_is_ok(self, harness: Harness, way: str) -> None:
        """C1: an empty batch is not a failure."""
        responses = WAYS[way](harness, harness.dispatcher(), [])

        assert len(responses) == 0
        assert responses.ok

    @pytest.mark.parametrize("way", WAYS)
    def test_each_item_is_told_once(self, harness: Harness, journal: Journal, way: str) -> None:
        """C4: hooks are told of each item of a batch, once, whatever became of it."""
        dispatcher = harness.dispatcher()
        requests: list[DispatchRequest] = [tasks.note.request(journal.path) for _ in range(3)]

        with told() as good:
            WAYS[way](harness, dispatcher, requests)
        # Failed ones as well: they take another way through the code.
        with told() as bad, harness.broken(dispatcher, RuntimeError("boom")):
            WAYS[way](harness, dispatcher, requests)

        for seen in (good, bad):
            assert sorted(each.request_id for each in seen) == sorted(r.id for r in requests)

    @pytest.mark.parametrize("way", WAYS)
    def test_a_batch_honours_the_options_of_each(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C6: each item of a batch has its own delay, whatever the others have."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.delay:
            pytest.skip(f"{dispatcher.name} cannot do delay, and refuses it")
        delays = {"far": far_within(dispatcher), "short": SHORT, "none": None}
        requests = [tasks.note.options(delay=d).request(journal.path, t) for t, d in delays.items()]

        WAYS[way](harness, dispatcher, requests).raise_for_error()
        run_until(harness, dispatcher, lambda: {"short", "none"} <= set(journal.texts))

        due = requests[1].due
        assert due is not None
        assert sorted(journal.texts) == ["none", "short"]
        assert journal.of(requests[1].id)[0].at >= due.timestamp() - TICK

    @pytest.mark.parametrize("way", WAYS)
    def test_a_batch_answers_what_became_of_each(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C3, C10: new work, duplicates and conflicts in one batch are answered as if alone."""
        harness.need("received")
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.deduplicate:
            pytest.skip(f"{dispatcher.name} does not deduplicate, and says so")

        alone = [_fact(dispatcher.dispatch(each)) for each in _mixed(journal, "alone")]
        requests = _mixed(journal, "batch")
        answers = WAYS[way](harness, dispatcher, requests)

        assert [_fact(each) for each in answers] == alone
        assert [each.status for each in (*answers[:2], *answers[3:])] == [
            *("accepted", "duplicate", "accepted", "accepted", "duplicate")
        ]
        ids = [each.id for each in requests]
        there = [each for each in arrived(harness, dispatcher, journal) if each in ids]
        assert sorted(there) == sorted(ids[number] for number in (0, 3, 4))

    @pytest.mark.parametrize("way", WAYS)
    def test_each_item_has_its_own_task_id(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C3: where an id of the backend is made of the request's, each item has its own."""
        dispatcher = harness.dispatcher()
        alone = send(dispatcher, journal).raise_for_error()
        if alone.request_id not in (alone.task_id or ""):
            pytest.skip(f"{dispatcher.name} has ids of its own")
        requests = [tasks.note.request(journal.path) for _ in range(5)]

        answers = WAYS[way](harness, dispatcher, requests).raise_for_error()

        assert [
            each.request_id for each in answers if each.request_id not in (each.task_id or "")
        ] == []

    @pytest.mark.parametrize("way", WAYS)
    def test_a_batch_is_in_the_order_of_single_dispatches(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C3: where work is run in the order of its dispatches, so is that of a batch."""
        harness.need("worker", "stepping")
        dispatcher = harness.dispatcher()
        texts = [str(number) for number in range(ORDERED)]
        for text in texts:
            send(dispatcher, journal, text).raise_for_error()
        run_until(harness, dispatcher, lambda: len(journal.texts) == ORDERED)
        if journal.texts != texts:
            pytest.skip(f"{dispatcher.name} keeps no order")

        requests = [tasks.note.request(journal.path, text) for text in texts]
        WAYS[way](harness, dispatcher, requests).raise_for_error()
        run_until(harness, dispatcher, lambda: len(journal.texts) == 2 * ORDERED)

        assert journal.texts[ORDERED:] == texts

    def test_a_batch_in_order_stops_at_a_failure(self, harness: Harness, journal: Journal) -> None:
        """C3, C9: nothing leaves after what may be dispatched again; what never can, stops none."""
        dispatcher = harness.dispatcher(queues=[harness.queue_name("mail")])
        note = tasks.note.request(journal.path)
        unknown = tasks.note.options(queue="mial").request(journal.path)
        never: Any = "no request"
        requests = [never, *_notes(journal, 2), unknown, *_notes(journal, 2)]

        answers = dispatcher._dispatch_in_order([*requests, never, note])

        assert [each.ok for each in answers] == [False, True, True, *[False] * 5]
        refused_with(answers[3], ErrorCategory.NOT_FOUND)
        for answer in answers[4:]:
            refused_with(answer, ErrorCategory.UNAVAILABLE)
        if harness.has("received") or harness.has("worker"):
            taken = [each.id for each in requests[1:3]]
            assert sorted(arrived(harness, dispatcher, journal, *taken)) == sorted(taken)

    def test_sync_and_async_answers_agree(self, harness: Harness, journal: Journal) -> None:
        """C8: whichever way a request is dispatched, the answer is the same."""
        dispatcher = harness.dispatcher()
        plain = tasks.note.request(journal.path)
        wanting = tasks.note.options(delay=SHORT, priority=1).request(journal.path)
        failing = tasks.fail.options(max_attempts=1).request(journal.path, 9)

        for request in (plain, wanting, failing, "no request"):
            _agree(every_way(harness, dispatcher, request))
        for exc in (RuntimeError("boom"), TimeoutError("boom"), ConnectionResetError("boom")):
            with harness.broken(dispatcher, exc):
                _agree(every_way(harness, dispatcher, tasks.note.request(journal.path)))


def _notes(journal: Journal, count: int, text: str = "") -> list[DispatchRequest]:
    return [tasks.note.request(journal.path, text) for _ in range(count)]


def _agree(answers: dict[str, DispatchResponse]) -> None:
    facts = {way: _facts(answer) for way, answer in answers.items()}
    assert len(set(facts.values())) == 1, facts


def _facts(answer: DispatchResponse) -> tuple[object, ...]:
    """All but what differs from call to call; the same request again may be a duplicate."""
    error = answer.error
    return (
        "accepted" if answer.status == "duplicate" else answer.status.value,
        answer.confirmed,
        answer.durable,
        answer.waived,
        answer.dispatcher,
        answer.backend,
        error and (error.category.value, error.retryable, error.exception_type),
    )


def _mixed(journal: Journal, key: str) -> list[DispatchRequest]:
    """Requests that are new, known, in conflict, new, new and known."""
    keyed = tasks.note.options(idempotency_key=key, deduplicate=True)
    fresh = tasks.note.options(deduplicate=True).request(journal.path)
    return [
        *(keyed.request(journal.path, text) for text in ("one", "one", "two")),
        *(fresh, tasks.note.request(journal.path), fresh),
    ]


def _fact(answer: DispatchResponse) -> tuple[object, ...]:
    return answer.status, answer.error and answer.error.category
