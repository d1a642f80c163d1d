"""C6: options are honoured, waived or refused; never dropped in silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatchers import BaseDispatcher, Capabilities, ErrorCategory
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import every_way
from ._tools import refused_with, run_until

__all__ = ["HonoursOptions"]

SHORT = timedelta(seconds=0.5)
"""A delay that a case can wait for."""
TICK = 0.01
"""Seconds by which two clocks of one machine may differ, a server's and the worker's."""
HANDY = 32 * 1024 * 1024
"""Bytes of an envelope that a case makes without much ado."""
OPTIONS: dict[str, dict[str, Any]] = {
    "delay": {"delay": timedelta(minutes=1)},
    "eta": {"eta": datetime.now(UTC) + timedelta(days=1)},
    "priority": {"priority": 5},
    "expires": {"expires": timedelta(minutes=5)},
    "time_limit": {"time_limit": 30.0},
    "deduplicate": {"deduplicate": True, "idempotency_key": "k"},
}
NEEDS = {name: "delay" if name == "eta" else name for name in OPTIONS}
"""The capability that an option needs."""


def _needs(dispatcher: BaseDispatcher, capability: str) -> None:
    if not dispatcher.capabilities.supports(capability):
        pytest.skip(f"{dispatcher.name} cannot do {capability}, and refuses it")


class HonoursOptions:
    """C6, from outside."""

    def test_capabilities_are_known_without_an_instance(self, harness: Harness) -> None:
        """C6: the class says at most what it can do, an instance exactly."""
        dispatcher = harness.dispatcher()

        widest = type(dispatcher).capabilities

        assert isinstance(widest, Capabilities)
        for name in ("delay", "priority", "deduplicate", "durable", "confirmed", "retries"):
            assert getattr(dispatcher.capabilities, name) <= getattr(widest, name), name

    @pytest.mark.parametrize("option", OPTIONS)
    def test_an_option_is_taken_or_refused(
        self, harness: Harness, journal: Journal, option: str
    ) -> None:
        """C6: what the backend can do is taken, the rest REJECTED as `unsupported` beforehand."""
        dispatcher = harness.dispatcher()
        request = tasks.note.options(**OPTIONS[option]).request(journal.path)

        answers = every_way(harness, dispatcher, request)

        if dispatcher.capabilities.supports(NEEDS[option]):
            assert all(answers.values())
            assert {answer.waived for answer in answers.values()} == {()}
            return
        for answer in answers.values():
            refused_with(answer, ErrorCategory.UNSUPPORTED)
        # Refused beforehand: nothing of it may have left.
        assert not harness.has("received") or harness.received(dispatcher) == []

    @pytest.mark.parametrize("option", OPTIONS)
    def test_a_waived_option_is_told(self, harness: Harness, journal: Journal, option: str) -> None:
        """C6: where the configuration waives what the backend lacks, the response lists it."""
        need = NEEDS[option]
        # Also where the backend can do it: then waiving must change nothing.
        dispatcher = harness.dispatcher(waive=[need])
        request = tasks.note.options(**OPTIONS[option]).request(journal.path)

        answers = every_way(harness, dispatcher, request)

        waived = () if dispatcher.capabilities.supports(need) else (need,)
        assert all(answers.values())
        assert {answer.waived for answer in answers.values()} == {waived}

    def test_delayed_work_waits(self, harness: Harness, journal: Journal) -> None:
        """C6: delayed work is run, and not before it is due."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "delay")
        later = tasks.note.options(dispatcher=dispatcher, delay=SHORT)

        response = later.dispatch(journal.path).raise_for_error()
        # No sleeping: a worker that runs it too early is caught by its own entry.
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert response.request is not None
        due = response.request.due
        assert due is not None
        # Only the lower bound: a loaded machine may be late by any time.
        assert journal.entries[0].at >= due.timestamp() - TICK

    def test_work_for_an_instant_waits_for_it(self, harness: Harness, journal: Journal) -> None:
        """C6: an `eta` in another time zone is that instant."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "delay")
        eta = datetime.now(UTC).astimezone() + SHORT

        tasks.note.options(dispatcher=dispatcher, eta=eta).dispatch(journal.path).raise_for_error()
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert journal.entries[0].at >= eta.timestamp() - TICK

    def test_higher_priority_runs_first(self, harness: Harness, journal: Journal) -> None:
        """C6: of the work that waits, that of higher priority is run first."""
        harness.need("worker", "stepping")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "priority")
        order = [-100, 0, 100]
        for priority in order:
            note = tasks.note.options(dispatcher=dispatcher, priority=priority)
            note.dispatch(journal.path, str(priority)).raise_for_error()

        run_until(harness, dispatcher, lambda: len(journal.texts) == len(order))

        assert journal.texts == ["100", "0", "-100"]

    def test_late_work_is_not_run(self, harness: Harness, journal: Journal) -> None:
        """C6: what is late when a worker gets to it is not run any more."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "expires")
        past = datetime.now(UTC) - timedelta(seconds=1)

        late = tasks.note.options(dispatcher=dispatcher, expires=past).dispatch(journal.path, "x")
        last = tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, "last")
        run_until(harness, dispatcher, lambda: bool(journal.of(last.request_id)))

        assert journal.texts == ["last"]
        if dispatcher.capabilities.runs_here:
            refused_with(late)

    def test_a_run_that_overruns_is_cancelled(self, harness: Harness, journal: Journal) -> None:
        """C6: an async task is cancelled at its time limit."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "time_limit")
        limited = tasks.overrun.options(dispatcher=dispatcher, time_limit=0.1)

        limited.dispatch(journal.path, 3.0)
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert journal.texts == ["cancelled"]

    def test_too_large_an_envelope_is_refused(self, harness: Harness, journal: Journal) -> None:
        """C6: beyond `max_size` the answer is REJECTED, `too_large`, before any contact."""
        dispatcher = harness.dispatcher()
        size = dispatcher.capabilities.max_size
        if size is None:
            pytest.skip(f"{dispatcher.name} takes envelopes of any size")
        if size > HANDY:
            pytest.skip(f"{dispatcher.name} takes envelopes of {size} bytes: too many to try")

        request = tasks.note.request(journal.path, "x" * (size + 1))

        refused_with(dispatcher.dispatch(request), ErrorCategory.TOO_LARGE)
        refused_with(dispatcher.dispatch_many([request])[0], ErrorCategory.TOO_LARGE)

    def test_too_long_a_delay_is_refused(self, harness: Harness, journal: Journal) -> None:
        """C6: beyond `max_delay` the answer is REJECTED, `unsupported`."""
        dispatcher = harness.dispatcher()
        longest = dispatcher.capabilities.max_delay
        if longest is None:
            pytest.skip(f"{dispatcher.name} delays for any time")
        request = tasks.note.options(delay=longest + timedelta(hours=1)).request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            refused_with(answer, ErrorCategory.UNSUPPORTED)

    def test_an_unknown_queue_is_refused(self, harness: Harness, journal: Journal) -> None:
        """C6: where queues are named in the configuration, another one is not created."""
        dispatcher = harness.dispatcher(queues=["mail", "low"], queue="mail")
        request = tasks.note.options(queue="mial").request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            refused_with(answer, ErrorCategory.NOT_FOUND)
