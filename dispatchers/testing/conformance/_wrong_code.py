"""C9 to C11: what follows from a run; and work that this worker cannot run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchRequest, ErrorCategory
from dispatchers._models.envelope import decode, encode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._tools import handed_over, refused_with, run_until, send

__all__ = ["JudgesRuns"]

PAUSE = 0.3
"""Seconds until another attempt."""
FOREIGN: dict[str, dict[str, Any]] = {
    "unknown task": {"task": "dispatchers.testing.no_such_task", "payload": {"x": 1}},
    "arguments": {"task": "dispatchers.testing.note", "payload": {"journal": 5}},
    "unknown argument": {
        "task": "dispatchers.testing.note",
        "payload": {"journal": "/nowhere", "colour": "red"},
    },
}
"""Work that no worker here can run."""


class JudgesRuns:
    """C9, C10 and C11, from outside."""

    def test_failed_work_is_tried_again(self, harness: Harness, journal: Journal) -> None:
        """C9: a failure worth another attempt gets one, up to `max_attempts`; then it is done."""
        dispatcher = _retrying(harness)

        handed_over(tasks.fail.options(dispatcher=dispatcher).dispatch(journal.path, 2))
        run_until(harness, dispatcher, lambda: "succeeded" in journal.texts)

        assert journal.texts == ["failed", "failed", "succeeded"]
        assert [entry.attempt for entry in journal.entries] == [1, 2, 3]
        # An attempt of its own each: a redelivery of the same one would count deliveries instead.
        assert {entry.deliveries for entry in journal.entries} == {1}

    def test_a_handler_may_ask_for_another_attempt(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: `Retry(after=...)` is another attempt, after so many seconds."""
        dispatcher = _retrying(harness)

        handed_over(tasks.wait.options(dispatcher=dispatcher).dispatch(journal.path, PAUSE))
        run_until(harness, dispatcher, lambda: len(journal.texts) > 1)

        first, second = journal.entries
        assert (first.attempt, second.attempt) == (1, 2)
        # In the call nothing waits: the caller would.
        if not dispatcher.capabilities.runs_here:
            assert second.at - first.at >= PAUSE

    def test_what_a_handler_discards_is_done(self, harness: Harness, journal: Journal) -> None:
        """C9: `Discard` is neither a failure nor another attempt."""
        harness.need("worker")
        dispatcher = harness.dispatcher(**harness.retrying)

        discarding = tasks.discard.options(dispatcher=dispatcher)
        response = handed_over(discarding.dispatch(journal.path))
        run_until(harness, dispatcher, lambda: "discarded" in journal.texts)
        # Work that comes after it has run, so that another attempt would have shown by now.
        last = handed_over(send(dispatcher, journal, "last"))
        run_until(harness, dispatcher, lambda: bool(journal.of(last.request_id)))

        assert response.ok
        assert journal.texts == ["discarded", "last"]
        assert not harness.has("dead") or harness.dead(dispatcher) == []

    def test_work_that_failed_for_good_is_kept(self, harness: Harness, journal: Journal) -> None:
        """C9: after the last attempt the work is dead-lettered, with its envelope."""
        harness.need("dead")
        dispatcher = _retrying(harness)
        request = tasks.fail.request(journal.path, 99)

        handed_over(dispatcher.dispatch(request))
        run_until(harness, dispatcher, lambda: bool(harness.dead(dispatcher)))

        assert [entry.attempt for entry in journal.entries] == [1, 2, 3]
        assert request.id.encode() in harness.dead(dispatcher)[0]

    def test_what_a_request_carries_survives_each_attempt(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C9: headers, context, key, times and limits are on the last attempt as on the first."""
        dispatcher = _retrying(harness)
        request = _laden(journal, 2)

        handed_over(dispatcher.dispatch(request))
        run_until(harness, dispatcher, lambda: journal.texts[2:] != [])

        # Without the two fields that concern the sender only, and do not travel.
        sent = json.loads(request.model_dump_json(exclude={"deadline", "deduplicate"}))
        assert [entry.attempt for entry in journal.entries] == [1, 2, 3]
        assert [json.loads(text) for text in journal.texts] == [sent] * 3

    def test_a_dead_letter_holds_what_was_sent(self, harness: Harness, journal: Journal) -> None:
        """C9: the envelope of a dead letter is the one that was handed over, for its replay."""
        harness.need("dead")
        dispatcher = _retrying(harness)
        request = _laden(journal, 99)

        handed_over(dispatcher.dispatch(request))
        run_until(harness, dispatcher, lambda: bool(harness.dead(dispatcher)))

        assert decode(harness.dead(dispatcher)[0]) == decode(encode(request))

    @pytest.mark.parametrize("foreign", FOREIGN)
    def test_what_is_not_understood_is_handed_back(
        self, harness: Harness, journal: Journal, foreign: str
    ) -> None:
        """C11: during a deploy an old worker hands new work back; it is neither lost nor dead."""
        dispatcher = harness.dispatcher(skew_grace=600.0)
        request = DispatchRequest.model_validate(FOREIGN[foreign])
        if dispatcher.capabilities.runs_here:
            refused_with(dispatcher.dispatch(request), *NOT_UNDERSTOOD)
            return
        harness.need("received", "worker", "stepping")
        # A backend may also check beforehand: a refusal in the call loses nothing either.
        if not (response := dispatcher.dispatch(request)).ok:
            refused_with(response, *NOT_UNDERSTOOD)
            return

        _until_it_has_been_looked_at(harness, dispatcher, journal)

        assert [request.id.encode() in body for body in harness.received(dispatcher)] == [True]
        assert not harness.has("dead") or harness.dead(dispatcher) == []

    @pytest.mark.parametrize("foreign", FOREIGN)
    def test_what_is_never_understood_is_kept(
        self, harness: Harness, journal: Journal, foreign: str
    ) -> None:
        """C11: after `skew_grace` the work is dead-lettered: never skipped, never endless."""
        dispatcher = harness.dispatcher(skew_grace=0.0)
        request = DispatchRequest.model_validate(FOREIGN[foreign])
        if dispatcher.capabilities.runs_here:
            refused_with(dispatcher.dispatch(request), *NOT_UNDERSTOOD)
            return
        harness.need("worker", "dead")
        if not (response := dispatcher.dispatch(request)).ok:
            refused_with(response, *NOT_UNDERSTOOD)
            return

        run_until(harness, dispatcher, lambda: bool(harness.dead(dispatcher)))

        assert request.id.encode() in harness.dead(dispatcher)[0]
        assert not harness.has("received") or harness.received(dispatcher) == []

    def test_work_under_a_former_name_runs(self, harness: Harness, journal: Journal) -> None:
        """C11: a task that was renamed still runs what was dispatched before."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        formerly = tasks.renamed.former_names[0]
        request = DispatchRequest.model_validate(
            {"task": formerly, "payload": {"journal": journal.path}}
        )

        response = handed_over(dispatcher.dispatch(request))
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert response.ok
        assert journal.texts == ["renamed"]


NOT_UNDERSTOOD = (ErrorCategory.NOT_FOUND, ErrorCategory.INVALID)
"""How what runs here, or checks here, refuses what it does not understand."""


def _retrying(harness: Harness) -> BaseDispatcher:
    harness.need("worker", "retry")
    return harness.dispatcher(**harness.retrying)


def _until_it_has_been_looked_at(
    harness: Harness, dispatcher: BaseDispatcher, journal: Journal
) -> None:
    """Work dispatched later has run, so what came before had its turn."""
    last = send(dispatcher, journal, "last").raise_for_error()
    run_until(harness, dispatcher, lambda: bool(journal.of(last.request_id)))


def _laden(journal: Journal, times: int) -> DispatchRequest:
    """A request with all that every backend carries."""
    return tasks.carry.options(
        headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "é": ""},
        context={"tenant": [1, None, {"é": 2.5}]},
        idempotency_key="the key",
        expires=timedelta(days=1),
        time_limit=60,
        max_attempts=3,
    ).request(journal.path, times)
