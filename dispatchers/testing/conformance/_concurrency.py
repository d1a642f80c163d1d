"""C7 and C8: acting now; threads, forks, loops, signals, and the end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from dispatchers import (
    BaseDispatcher,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
)
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness, alone
from dispatchers.testing.journal import Journal

from . import _tools
from ._never_hangs import CLOSING, proxied
from ._never_raises import every_way
from ._tools import answered, arrived, in_child, opened, refused_with, send, told

__all__ = ["ServesMany", "interrupted", "is_full"]

AT_ONCE = 50
"""Dispatches of either process: so many that they meet."""
LEISURE = 0.5
"""The deadline of the cases that watch what happens meanwhile."""
FEW = 5
"""Turns of a loop that are more than none, on however busy a machine."""
INTERRUPTIONS = 20
"""Signals that are enough to hit every lock."""


class ServesMany:
    """C7 and C8, from outside."""

    def test_a_dispatcher_acts_now(self, harness: Harness, journal: Journal) -> None:
        """C7: a dispatcher hands over now or says no; waiting for a commit is the glue's."""
        dispatcher = harness.dispatcher()

        answers = every_way(harness, dispatcher, tasks.note.request(journal.path))

        assert DispatchStatus.DEFERRED not in {answer.status for answer in answers.values()}
        assert all(answers.values())

    def test_many_threads_share_a_dispatcher(self, harness: Harness, journal: Journal) -> None:
        """C8: every dispatch of many threads is handed over, each once."""
        dispatcher = harness.dispatcher(deadline=2 * harness.deadline)
        # All at once: threads that start one by one are often done before the next begins.
        start = threading.Barrier(8)

        def work(_: int) -> list[DispatchResponse]:
            start.wait(_tools.PATIENCE)
            return [send(dispatcher, journal) for _ in range(20)]

        with ThreadPoolExecutor(8) as pool:
            answers = [answer for each in pool.map(work, range(8)) for answer in each]

        assert all(answers)
        if harness.has("received") or harness.has("worker"):
            ids = [answer.request_id for answer in answers]
            assert sorted(arrived(harness, dispatcher, journal, *ids)) == sorted(ids)

    def test_a_forked_child_and_its_parent_both_work(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: after a fork both dispatch, on connections of their own, and nothing is lost."""
        dispatcher = harness.dispatcher()
        before = send(dispatcher, journal)

        status = in_child(lambda: _thrice(dispatcher, journal))
        after = [send(dispatcher, journal) for _ in range(3)]

        assert status.split()[0] == "ok", status
        assert all([before, *after])
        if harness.has("received") or harness.has("worker"):
            expected = [each.request_id for each in (before, *after)]
            expected += status.split()[1:] if harness.has("processes") else []
            there = arrived(harness, dispatcher, journal, *expected)
            assert set(expected) <= set(there)

    def test_a_forked_child_and_its_parent_dispatch_at_once(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: parent and child dispatch at the same time, and neither disturbs the other."""
        dispatcher = harness.dispatcher(deadline=2 * harness.deadline)
        opened(dispatcher, journal)  # the connection that the child inherits
        begun, begin = os.pipe()
        mine: list[DispatchResponse] = []

        said = in_child(
            lambda: (os.write(begin, b"!"), _several(dispatcher, journal, AT_ONCE))[1],
            lambda: mine.extend(_after(begun, lambda: send(dispatcher, journal))),
        )
        os.close(begun)
        os.close(begin)

        assert said.split()[0] == "ok", said
        assert all(mine), [each for each in mine if not each][:3]
        if harness.has("received") or harness.has("worker"):
            expected = [each.request_id for each in mine]
            expected += said.split()[1:] if harness.has("processes") else []
            there = arrived(harness, dispatcher, journal, *expected)
            assert sorted(each for each in there if each in set(expected)) == sorted(expected)

    def test_a_child_forked_during_a_dispatch_works(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: locks that other threads held during the fork do not block the child."""
        dispatcher = harness.dispatcher()
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                send(dispatcher, journal)

        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            # Several forks: one may hit a moment at which no lock is held.
            said = [in_child(lambda: _thrice(dispatcher, journal)) for _ in range(5)]
        finally:
            # In any case, so that a failure leaves no thread behind.
            stop.set()
            for thread in threads:
                thread.join()

        assert [each.split()[0] for each in said] == ["ok"] * 5, said

    def test_a_signal_handler_may_dispatch(self, harness: Harness, journal: Journal) -> None:
        """C8: a signal handler that interrupts a dispatch gets an answer to its own, and at once.

        The interrupted dispatch succeeds; the handler's may be REJECTED while the client is busy.
        """
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signal handlers run on the main thread")
        dispatcher = harness.dispatcher()
        tasks.note.request(journal.path)  # what is read and imported once is no matter of adapters

        said = in_child(lambda: interrupted(dispatcher, journal))

        assert said == "ok", said

    def test_an_awaited_dispatch_does_not_block_the_loop(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: while a backend does not answer, the event loop goes on."""
        request = tasks.note.request(journal.path)
        if harness.has("network"):
            with proxied(harness, deadline=LEISURE) as (proxy, dispatcher):
                proxy.black_hole()
                turns = harness.run_coroutine(_turns_during(dispatcher, request))
        else:
            dispatcher = harness.dispatcher(deadline=LEISURE)
            if dispatcher.capabilities.runs_here:
                turns = harness.run_coroutine(
                    _turns_during(dispatcher, tasks.sleep.request(journal.path, LEISURE))
                )
            else:
                harness.need("stall")
                with harness.stalled(dispatcher):
                    turns = harness.run_coroutine(_turns_during(dispatcher, request))

        assert turns >= FEW, f"the loop had {turns} turns in {LEISURE} s"

    def test_a_cancelled_dispatch_is_still_told(self, harness: Harness, journal: Journal) -> None:
        """C8: cancelling does not unsend: what became of it reaches the hooks."""
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)

        with told() as seen:
            harness.run_coroutine(_cancelled(dispatcher, request, lambda: bool(seen)))

        assert [answer.request_id for answer in seen] == [request.id]

    def test_two_loops_share_a_dispatcher(self, harness: Harness, journal: Journal) -> None:
        """C8: nothing of a dispatcher belongs to the loop that used it first."""
        dispatcher = harness.dispatcher()

        def loop(_: int) -> list[DispatchResponse]:
            requests = [tasks.note.request(journal.path) for _ in range(5)]

            async def main() -> list[DispatchResponse]:
                return list(await asyncio.gather(*map(dispatcher.adispatch, requests)))

            return alone(main())

        # The second loop finds what the first has left: connections of a closed loop, say.
        one_after_the_other = [loop(0), loop(1)]
        with ThreadPoolExecutor(2) as pool:
            at_once = list(pool.map(loop, range(2)))

        assert all(answer for each in one_after_the_other + at_once for answer in each)

    def test_a_closed_dispatcher_refuses(self, harness: Harness, journal: Journal) -> None:
        """C8: after `close` every dispatch is REJECTED as `closed`; closing twice is harmless."""
        dispatcher = harness.dispatcher()

        left = [dispatcher.close(1.0), dispatcher.close(1.0)]
        answers = every_way(harness, dispatcher, tasks.note.request(journal.path))

        assert left == [0, 0]
        for answer in answers.values():
            refused_with(answer, ErrorCategory.CLOSED)

    def test_closing_keeps_its_timeout(self, harness: Harness, journal: Journal) -> None:
        """C8: `close` returns in time although the server does not answer any more."""
        if harness.has("network"):
            with proxied(harness) as (proxy, dispatcher):
                opened(dispatcher, journal)
                proxy.black_hole()
                answered(CLOSING, lambda: dispatcher.close(CLOSING))
        else:
            harness.need("stall")
            dispatcher = harness.dispatcher()
            opened(dispatcher, journal)
            with harness.stalled(dispatcher):
                answered(CLOSING, lambda: dispatcher.close(CLOSING))

    def test_closing_an_unused_dispatcher_is_quick(self, harness: Harness) -> None:
        """C8: `close` keeps its timeout, also where there was nothing to close."""
        dispatcher = harness.dispatcher()
        started = monotonic()

        left = dispatcher.close(0.5)

        assert left == 0
        assert monotonic() - started <= 0.5 + 0.25


def _thrice(dispatcher: BaseDispatcher, journal: Journal) -> str:
    return _several(dispatcher, journal, 3)


def _after(begun: int, call: Callable[[], DispatchResponse]) -> list[DispatchResponse]:
    """Dispatch as often as the child, once that has begun."""
    ready, _, _ = select.select([begun], [], [], _tools.PATIENCE)
    assert ready, "the child does not begin"
    return _while_ok(call, AT_ONCE)


def _while_ok(call: Callable[[], DispatchResponse], number: int) -> list[DispatchResponse]:
    """Dispatch so often, or until one fails: the others would wait for what is broken."""
    answers: list[DispatchResponse] = []
    while len(answers) < number and all(answers[-1:]):
        answers.append(call())
    return answers


def _several(dispatcher: BaseDispatcher, journal: Journal, number: int) -> str:
    """`ok` and the request ids, or what went wrong."""
    answers = _while_ok(lambda: send(dispatcher, journal), number)
    if not all(answers):
        return repr(answers)
    return " ".join(["ok", *(answer.request_id for answer in answers)])


def interrupted(dispatcher: BaseDispatcher, journal: Journal, share: float = 0.5) -> str:
    """Dispatch until a signal handler has dispatched in the midst of it a few times."""
    answers: list[DispatchResponse] = []
    nested: list[DispatchResponse] = []

    handling: list[bool] = []

    def handle(_signal: int, _frame: object) -> None:
        if not handling:  # one level is enough: a slow backend would be buried in signals
            handling.append(True)
            nested.append(send(dispatcher, journal))
            handling.clear()

    signal.signal(signal.SIGUSR1, handle)
    threading.Thread(target=_signalling, args=(nested,), daemon=True).start()
    until = monotonic() + _tools.PATIENCE * share
    while len(nested) < INTERRUPTIONS and monotonic() < until:
        answers.append(send(dispatcher, journal))
    bad = [answer for answer in answers if not answer and not is_full(answer)]
    bad += [a for a in nested if not a and a.status is not DispatchStatus.REJECTED]
    return repr(bad[:3]) if bad else "ok"


def is_full(response: DispatchResponse) -> bool:
    """Tell whether a backend refuses more than it has been given: others were quicker."""
    return response.error is not None and response.error.category is ErrorCategory.CAPACITY


def _signalling(nested: list[DispatchResponse]) -> None:
    """Signals that come at odd moments, and stop before the handlers pile up."""
    pause = threading.Event()
    for number in range(1000):
        # Uneven pauses, so that signals do not keep step with the dispatches.
        pause.wait(0.001 + number % 7 / 3000)
        if len(nested) >= INTERRUPTIONS:
            return
        os.kill(os.getpid(), signal.SIGUSR1)


async def _turns_during(dispatcher: BaseDispatcher, request: DispatchRequest) -> int:
    """Return how often the loop turned during a dispatch."""
    dispatch = asyncio.ensure_future(dispatcher.adispatch(request))
    turns = 0
    while not dispatch.done():
        await asyncio.sleep(0.02)
        turns += 1
    await dispatch
    return turns


async def _cancelled(
    dispatcher: BaseDispatcher, request: DispatchRequest, is_told: Callable[[], bool]
) -> None:
    """Cancel a dispatch as it begins, then wait until it is told or patience ends."""
    task = asyncio.ensure_future(dispatcher.adispatch(request))
    # One turn of the loop, so that the dispatch has begun when it is cancelled.
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    until = monotonic() + _tools.PATIENCE / 4
    while not is_told() and monotonic() < until:  # noqa: ASYNC110 - a hook tells
        await asyncio.sleep(0.01)
