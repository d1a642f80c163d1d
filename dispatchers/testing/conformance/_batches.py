"""C1 to C4 for `dispatch_many`: one answer each, in order; and C8: sync and async agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
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
from ._tools import arrived, refused_with, told

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

    def test_sync_and_async_answers_agree(self, harness: Harness, journal: Journal) -> None:
        """C8: whichever way a request is dispatched, the answer is the same."""
        dispatcher = harness.dispatcher()
        plain = tasks.note.request(journal.path)
        wanting = tasks.note.options(delay=timedelta(minutes=1), priority=1).request(journal.path)
        failing = tasks.fail.options(max_attempts=1).request(journal.path, 9)

        for request in (plain, wanting, failing, "no request"):
            _agree(every_way(harness, dispatcher, request))
        for exc in (RuntimeError("boom"), TimeoutError("boom"), ConnectionResetError("boom")):
            with harness.broken(dispatcher, exc):
                _agree(every_way(harness, dispatcher, tasks.note.request(journal.path)))


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
