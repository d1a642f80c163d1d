"""C2 to C4, C6 and C8 for what gathers behind a call that is under way, and may share the next."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from secrets import token_hex

import pytest

from dispatchers import (
    BaseDispatcher,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    hooks,
)
from dispatchers._dispatch.base import LARGE as ALONE
from dispatchers._dispatch.shared_sending import THREADS as HELPERS
from dispatchers._models.envelope import decode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness, alone
from dispatchers.testing.journal import Journal

from . import _tools
from ._at_once import AT_ONCE, SHORT, THREADS
from ._concurrency import interrupted, is_full
from ._never_hangs import proxied
from ._tools import (
    arrived,
    eventually,
    in_child,
    in_child_that_exits,
    opened,
    refused_with,
    send,
)

__all__ = ["ServesGathered"]

MANY = 40
"""Dispatches of one loop: so many that they do not all fit the calls that are under way."""
FEW = 5
"""Dispatches that wait for their turn beside busy callers."""
BUSY = 4
"""Threads, or coroutines, that go on dispatching meanwhile."""
LARGE = 1_000_000
"""Bytes of arguments that a slow network is busy with."""
SLOW = 40_000.0
"""Bytes per second: the large one would take longer than any case's deadline."""
CALLER: ContextVar[str] = ContextVar("CALLER", default="none")


class ServesGathered:
    """Cases for dispatches that gather behind another, from outside."""

    def test_many_that_fail_together_count_once(self, harness: Harness, journal: Journal) -> None:
        """C4: a call that many share is one failure to the breaker, however many were in it."""
        breaker = {"failures": HELPERS + 1}
        with proxied(harness, deadline=SHORT, breaker=breaker) as (proxy, dispatcher):
            _need_sharing(dispatcher)
            opened(dispatcher, journal)
            proxy.black_hole()

            answers = AT_ONCE["loop"](harness, dispatcher, _notes(journal, MANY))
            after = send(dispatcher, journal)

        assert not any(answers)
        assert after.error is not None
        assert after.error.category is not ErrorCategory.CIRCUIT_OPEN

    def test_many_whose_reply_is_lost_are_in_doubt(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C3: of those who shared a call that failed, none is called rejected and yet there."""
        harness.need("network", "received")
        with proxied(harness, deadline=harness.deadline) as (proxy, dispatcher):
            opened(dispatcher, journal)
            proxy.drop_reply()

            answers = AT_ONCE["loop"](harness, dispatcher, _notes(journal, MANY))
            proxy.heal()
            there = set(arrived(harness, dispatcher, journal))

        assert not any(answers)
        rejected = {a.request_id for a in answers if a.status is DispatchStatus.REJECTED}
        assert not rejected & there

    @pytest.mark.parametrize("way", AT_ONCE)
    def test_the_urgent_of_many_at_once_run_first(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C6: who shares a call with others keeps a priority of its own."""
        harness.need("worker", "stepping")
        dispatcher = harness.dispatcher()
        if not dispatcher.capabilities.priority:
            pytest.skip(f"{dispatcher.name} has no priorities, and refuses them")
        levels = [0, -100, 100] * 8
        requests = [tasks.note.options(priority=n).request(journal.path, str(n)) for n in levels]

        answers = AT_ONCE[way](harness, dispatcher, requests)
        assert all(answers)
        _tools.run_until(harness, dispatcher, lambda: len(journal.texts) == len(levels))

        assert journal.texts == [str(level) for level in sorted(levels, reverse=True)]

    @pytest.mark.parametrize("busy", AT_ONCE)
    def test_neither_threads_nor_loops_starve(
        self, harness: Harness, journal: Journal, busy: str
    ) -> None:
        """C8: while threads go on dispatching a loop has its turn, and the other way round."""
        dispatcher = harness.dispatcher()
        other = AT_ONCE["loop" if busy == "threads" else "threads"]

        with _at_work(busy, dispatcher, journal):
            answers = other(harness, dispatcher, _notes(journal, FEW))

        refused = [each for each in answers if not each and not is_full(each)]
        assert not refused, refused[:3]

    @pytest.mark.parametrize("way", AT_ONCE)
    def test_a_large_one_holds_up_no_small_ones(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C2: behind a large one that a slow network takes its time for, small ones arrive."""
        with proxied(harness, deadline=harness.deadline) as (proxy, dispatcher):
            # Of random letters: a client that compresses would make the large one small.
            text = token_hex(_size_within(dispatcher) // 2)
            large = tasks.note.request(journal.path, text)
            opened(dispatcher, journal)
            proxy.slow_drip(SLOW, direction="request")
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(DISPATCH[way], dispatcher, large)
                eventually(lambda: proxy.request_bytes > LARGE // 100)

                answers = AT_ONCE[way](harness, dispatcher, _notes(journal, FEW))
                still = not first.done()
                proxy.heal()

        assert all(answers), [each for each in answers if not each][:3]
        assert still, "the large one was through before the others: nothing was judged"

    @pytest.mark.parametrize("way", AT_ONCE)
    def test_each_is_told_in_the_context_of_its_caller(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C8: the hooks of each see the variables of its own caller, whichever thread sent it."""
        requests = _notes(journal, MANY)
        seen: dict[str, str] = {}

        def look(response: DispatchResponse) -> None:
            seen[response.request_id] = CALLER.get()

        hooks.after_dispatch(look)
        try:
            AT_ONCE[way](harness, _OfCallers(harness.dispatcher()), requests)
        finally:
            hooks.remove(look)

        assert seen == {request.id: request.id for request in requests}

    @pytest.mark.parametrize("way", AT_ONCE)
    def test_each_of_many_at_once_carries_its_own_trace(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C5: what a hook reads of the caller's context goes with that caller's work, no other."""
        harness.need("received")
        dispatcher, requests = harness.dispatcher(), _notes(journal, MANY)

        hooks.before_dispatch(_traced)
        try:
            answers = AT_ONCE[way](harness, _OfCallers(dispatcher), requests)
        finally:
            hooks.remove(_traced)
        there = [decode(body) for body in harness.received(dispatcher)]

        assert all(answers), [each for each in answers if not each][:3]
        traces = {each.id: dict(each.headers) for each in there}
        assert traces == {request.id: {"traceparent": request.id} for request in requests}

    def test_closing_lets_those_who_wait_be_sent(self, harness: Harness, journal: Journal) -> None:
        """C8: what has begun when a dispatcher is closed is answered as it would be without."""
        with proxied(harness, deadline=_tools.PATIENCE) as (proxy, dispatcher):
            opened(dispatcher, journal)
            proxy.stall()

            with _gathering(dispatcher, _notes(journal, MANY)) as answers:
                closing = threading.Thread(target=dispatcher.close, args=(_tools.PATIENCE,))
                closing.start()
                eventually(lambda: dispatcher._closed)
                late = send(dispatcher, journal)
                proxy.heal()
                closing.join()

        refused_with(late, ErrorCategory.CLOSED)
        assert len(answers) == MANY
        failed = [each for each in answers if not each]
        if dispatcher._sharing is None:  # what waited for a thread may be refused, then
            failed = [each for each in failed if not _is_refused(each)]
        assert not failed, failed[:3]

    def test_a_child_forked_while_many_wait_sends_none_of_them(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: what has gathered is the parent's to hand over; the child hands over its own."""
        with proxied(harness, deadline=_tools.PATIENCE) as (proxy, dispatcher):
            opened(dispatcher, journal)
            proxy.stall()
            requests = _notes(journal, MANY)

            with _gathering(dispatcher, requests) as answers:
                said = in_child(lambda: _accepted(dispatcher, journal), proxy.heal)

            assert said == "ok", said
            # A duplicate was handed over by the child before, where the backend can tell.
            judged = [answer for answer in answers if answer.status is not DispatchStatus.ACCEPTED]
            assert not judged, judged[:3]
            if harness.has("received") or harness.has("worker"):
                ids = {request.id for request in requests}
                there = [
                    each for each in arrived(harness, dispatcher, journal, *ids) if each in ids
                ]
                assert sorted(there) == sorted(ids)

    def test_a_signal_handler_may_dispatch_beside_others(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: a signal handler that interrupts one of many who wait for a turn has an answer."""
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signal handlers run on the main thread")
        dispatcher = harness.dispatcher()
        tasks.note.request(journal.path)

        said = in_child(lambda: _interrupted_beside_others(dispatcher, journal))

        assert said == "ok", said

    def test_a_dispatch_at_the_end_of_the_interpreter_is_answered(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C1: as the interpreter exits a dispatch is taken or rejected, and hangs no exit."""
        dispatcher = harness.dispatcher()

        said = in_child_that_exits(
            lambda: AT_ONCE["threads"](harness, dispatcher, _notes(journal, THREADS)),
            lambda: _last_words(dispatcher, journal),
        )

        assert said == "ok", said


def _notes(journal: Journal, number: int) -> list[DispatchRequest]:
    return [tasks.note.request(journal.path) for _ in range(number)]


def _need_sharing(dispatcher: BaseDispatcher) -> None:
    if dispatcher._sharing is None:
        pytest.skip(f"{dispatcher.name} hands over each by itself, and each counts")


def _size_within(dispatcher: BaseDispatcher) -> int:
    """Characters that the backend takes, if they are enough to be a large message."""
    most = dispatcher.capabilities.max_size or 2 * LARGE
    if most < 3 * ALONE:
        pytest.skip(f"{dispatcher.name} takes no large envelopes: at most {most} bytes")
    return min(LARGE, most - ALONE)


DISPATCH: dict[str, Callable[[BaseDispatcher, DispatchRequest], DispatchResponse]] = {
    "threads": lambda dispatcher, request: dispatcher.dispatch(request),
    "loop": lambda dispatcher, request: alone(dispatcher.adispatch(request)),
}


@contextmanager
def _at_work(
    way: str, dispatcher: BaseDispatcher, journal: Journal, *, callers: int = BUSY
) -> Generator[None]:
    """Callers that dispatch before the block begins, and go on until it ends."""
    stop, sent = threading.Event(), threading.Semaphore(0)

    def caller() -> None:
        while not stop.is_set():
            send(dispatcher, journal)
            sent.release()

    async def coroutine() -> None:
        while not stop.is_set():
            await dispatcher.adispatch(tasks.note.request(journal.path))
            sent.release()
            await asyncio.sleep(0)  # where an answer needs no turn of the loop

    async def loop() -> None:
        await asyncio.gather(*(coroutine() for _ in range(callers)))

    work = [caller] * callers if way == "threads" else [lambda: alone(loop())]
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for thread in threads:
        thread.start()
    try:
        assert all(sent.acquire(timeout=_tools.PATIENCE) for _ in range(2 * callers))
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def _gathering(
    dispatcher: BaseDispatcher, requests: Sequence[DispatchRequest]
) -> Generator[list[DispatchResponse]]:
    """Have requests dispatched on another thread's loop; their answers, once the block ends."""
    answers: list[DispatchResponse] = []
    begun = threading.Event()

    async def main() -> None:
        futures = [asyncio.ensure_future(dispatcher.adispatch(each)) for each in requests]
        await asyncio.sleep(0)
        begun.set()
        answers.extend(await asyncio.gather(*futures))

    thread = threading.Thread(target=lambda: alone(main()), daemon=True)
    thread.start()
    assert begun.wait(_tools.PATIENCE)
    try:
        yield answers
    finally:
        thread.join()


class _OfCallers:
    """Dispatches each request from a caller with a context of its own."""

    def __init__(self, dispatcher: BaseDispatcher) -> None:
        self._dispatcher = dispatcher

    def dispatch(self, request: DispatchRequest) -> DispatchResponse:
        CALLER.set(request.id)
        return self._dispatcher.dispatch(request)

    async def adispatch(self, request: DispatchRequest) -> DispatchResponse:
        CALLER.set(request.id)
        return await self._dispatcher.adispatch(request)


def _traced(request: DispatchRequest) -> DispatchRequest:
    return request.replace(headers={"traceparent": CALLER.get()})


def _accepted(dispatcher: BaseDispatcher, journal: Journal) -> str:
    answers = [send(dispatcher, journal) for _ in range(3)]
    return "ok" if all(answers) else repr(answers)


def _interrupted_beside_others(dispatcher: BaseDispatcher, journal: Journal) -> str:
    with _at_work("threads", dispatcher, journal, callers=2):
        return interrupted(dispatcher, journal, 0.2)


def _last_words(dispatcher: BaseDispatcher, journal: Journal) -> str:
    """`ok` if both ways to dispatch are answered with what is certain."""
    answers = [DISPATCH[way](dispatcher, tasks.note.request(journal.path)) for way in DISPATCH]
    return "ok" if all(each or _is_refused(each) for each in answers) else repr(answers)


def _is_refused(response: DispatchResponse) -> bool:
    """Tell whether work was certainly not handed over, for a reason that is told."""
    assert response.error is not None
    rejected = response.status is DispatchStatus.REJECTED
    return rejected and response.error.category is not ErrorCategory.INTERNAL
