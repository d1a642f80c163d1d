"""C6: options are honoured, waived or refused; never dropped in silence."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatchers import BaseDispatcher, Capabilities, DispatchRequest, ErrorCategory
from dispatchers._models.envelope import encode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import WAYS, every_way
from ._tools import eventually, handed_over, refused_with, run_until, send

__all__ = ["HonoursOptions"]

SHORT = timedelta(seconds=0.5)
"""A delay that a case can wait for."""
TICK = 0.01
"""Seconds by which two clocks of one machine may differ, a server's and the worker's."""
HANDY = 32 * 1024 * 1024
"""Bytes of an envelope that a case makes without much ado."""
FAR = timedelta(days=1)
"""A delay that no case waits for."""
NEEDS = {
    "delay": "delay",
    "eta": "delay",
    **{name: name for name in ("priority", "expires", "time_limit", "deduplicate")},
}
"""The options that not every backend has, and the capability that each needs."""


def _option(name: str, dispatcher: BaseDispatcher) -> dict[str, Any]:
    """A value of the option that the backend takes if it takes the option at all."""
    far = far_within(dispatcher)
    values: dict[str, dict[str, Any]] = {
        "delay": {"delay": far},
        "eta": {"eta": datetime.now(UTC) + far},
        "priority": {"priority": 5},
        "expires": {"expires": timedelta(minutes=5)},
        "time_limit": {"time_limit": 30.0},
        "deduplicate": {"deduplicate": True, "idempotency_key": "k"},
    }
    return values[name]


def far_within(dispatcher: BaseDispatcher) -> timedelta:
    """A delay as long as no case waits for it, and the backend still takes it."""
    longest = dispatcher.capabilities.max_delay
    # Half of it: the request is older when the backend looks at it.
    return FAR if longest is None else min(FAR, longest / 2)


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

    @pytest.mark.parametrize("option", NEEDS)
    def test_an_option_is_taken_or_refused(
        self, harness: Harness, journal: Journal, option: str
    ) -> None:
        """C6: what the backend can do is taken, the rest REJECTED as `unsupported` beforehand."""
        dispatcher = harness.dispatcher()
        request = tasks.note.options(**_option(option, dispatcher)).request(journal.path)

        answers = every_way(harness, dispatcher, request)

        if dispatcher.capabilities.supports(NEEDS[option]):
            assert all(answers.values())
            assert {answer.waived for answer in answers.values()} == {()}
            return
        for answer in answers.values():
            refused_with(answer, ErrorCategory.UNSUPPORTED)
        # Refused beforehand: nothing of it may have left.
        assert not harness.has("received") or harness.received(dispatcher) == []

    @pytest.mark.parametrize("option", NEEDS)
    def test_a_waived_option_is_told(self, harness: Harness, journal: Journal, option: str) -> None:
        """C6: where the configuration waives what the backend lacks, the response lists it."""
        need = NEEDS[option]
        # Also where the backend can do it: then waiving must change nothing.
        dispatcher = harness.dispatcher(waive=[need])
        request = tasks.note.options(**_option(option, dispatcher)).request(journal.path)

        answers = every_way(harness, dispatcher, request)

        waived = () if dispatcher.capabilities.supports(need) else (need,)
        assert all(answers.values())
        assert {answer.waived for answer in answers.values()} == {waived}

    @pytest.mark.parametrize("way", ["dispatch", "adispatch"])
    def test_delayed_work_waits(self, harness: Harness, journal: Journal, way: str) -> None:
        """C6: delayed work is run, and not before it is due."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "delay")
        request = tasks.note.options(delay=SHORT).request(journal.path)

        response = WAYS[way](harness, dispatcher, request).raise_for_error()
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

    def test_an_instant_is_the_same_in_each_time_zone(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C6: delayed work waits as long where the clock of the process is of another zone."""
        harness.need("worker")
        dispatcher = harness.dispatcher()
        _needs(dispatcher, "delay")
        later = tasks.note.options(dispatcher=dispatcher, delay=SHORT)

        with _in_zone("EAST-5"):
            response = later.dispatch(journal.path).raise_for_error()
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert response.request is not None
        assert response.request.due is not None
        assert journal.entries[0].at >= response.request.due.timestamp() - TICK

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
        last = handed_over(send(dispatcher, journal, "last"))
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

        handed_over(limited.dispatch(journal.path, 3.0))
        run_until(harness, dispatcher, lambda: bool(journal.texts))

        assert journal.texts == ["cancelled"]

    def test_too_large_an_envelope_is_refused(self, harness: Harness, journal: Journal) -> None:
        """C6: beyond `max_size` the answer is REJECTED, `too_large`, before any contact."""
        dispatcher = harness.dispatcher()
        size = _handy_size(dispatcher)

        request = tasks.note.request(journal.path, "x" * (size + 1))

        for answer in every_way(harness, dispatcher, request).values():
            refused_with(answer, ErrorCategory.TOO_LARGE)

    def test_the_largest_envelope_is_taken(self, harness: Harness, journal: Journal) -> None:
        """C6: an envelope of exactly `max_size` bytes is handed over whole; one byte more is not.

        What travels beside the envelope must fit as well: `max_size` is what a caller may send.
        """
        dispatcher = harness.dispatcher()
        size = _handy_size(dispatcher)

        answers = [dispatcher.dispatch(_sized(journal, size)) for _ in range(2)]
        answers += dispatcher.dispatch_many([_sized(journal, size)])
        above = dispatcher.dispatch(_sized(journal, size + 1))

        assert all(answers), answers
        refused_with(above, ErrorCategory.TOO_LARGE)
        if harness.has("received"):
            assert sorted(map(len, harness.received(dispatcher))) == [size] * len(answers)

    def test_too_long_a_delay_is_refused(self, harness: Harness, journal: Journal) -> None:
        """C6: beyond `max_delay` the answer is REJECTED, `unsupported`."""
        dispatcher = harness.dispatcher()
        longest = dispatcher.capabilities.max_delay
        if longest is None:
            pytest.skip(f"{dispatcher.name} delays for any time")
        request = tasks.note.options(delay=longest + timedelta(hours=1)).request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            refused_with(answer, ErrorCategory.UNSUPPORTED)

    def test_work_goes_to_the_queue_of_its_request(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C6: work goes to the queue that its request names, alone and in a batch."""
        harness.need("stepping")
        other = harness.queue_name("other")
        dispatcher = harness.dispatcher(queues=[other])
        _needs(dispatcher, "queues")
        usual = Counter(harness.waiting(dispatcher))
        note = tasks.note.options(queue=other)

        send(dispatcher, journal).raise_for_error()
        dispatcher.dispatch(note.request(journal.path)).raise_for_error()
        batch = [tasks.note.request(journal.path), note.request(journal.path)]
        dispatcher.dispatch_many(batch).raise_for_error()

        # A broker counts in its own time.
        eventually(lambda: sum(harness.waiting(dispatcher).values()) == usual.total() + 4)
        waiting = harness.waiting(dispatcher)
        assert waiting.get(other) == usual[other] + 2, waiting

    def test_an_unknown_queue_is_refused(self, harness: Harness, journal: Journal) -> None:
        """C6: where queues are named in the configuration, another one is not created."""
        dispatcher = harness.dispatcher(queues=["mail", "low"], queue="mail")
        request = tasks.note.options(queue="mial").request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            refused_with(answer, ErrorCategory.NOT_FOUND)

    def test_what_the_server_refuses_has_its_category(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C4, C6: what the server refuses is REJECTED, with the category of the server's reason."""
        seen = 0
        for dispatcher, category in harness.refusals():
            seen += 1
            request = tasks.note.request(journal.path)
            for way, answer in every_way(harness, dispatcher, request).items():
                refused_with(answer, category)
                assert answer.error is not None, way
                assert answer.error.exception_type or answer.error.message, way
        if not seen:
            pytest.skip("the harness has no server that refuses (`refusals`)")


@contextmanager
def _in_zone(name: str) -> Generator[None]:
    """This process with the clock of another time zone, as POSIX writes it."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change the time zone of a process")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


def _handy_size(dispatcher: BaseDispatcher) -> int:
    """Bytes of the largest envelope, if a case can make one."""
    size = dispatcher.capabilities.max_size
    if size is None:
        pytest.skip(f"{dispatcher.name} takes envelopes of any size")
    if size > HANDY:
        pytest.skip(f"{dispatcher.name} takes envelopes of {size} bytes: too many to try")
    return size


def _sized(journal: Journal, size: int) -> DispatchRequest:
    """A request whose envelope has exactly so many bytes."""
    request = tasks.note.request(journal.path)
    pad = size - len(encode(_with_text(request, "")))
    return _with_text(request, "x" * pad)


def _with_text(request: DispatchRequest, text: str) -> DispatchRequest:
    return request.replace(payload={**request.payload, "text": text})
