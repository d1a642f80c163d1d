"""C2, C3 and C8 for dispatches of many callers at once, which may share a call of the client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Protocol

import pytest

from dispatchers import BaseDispatcher, DispatchRequest, DispatchResponse, DispatchStatus
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from . import _tools
from ._never_hangs import proxied
from ._tools import answered, arrived, opened, told

__all__ = ["ServesAtOnce"]

THREADS = 8
"""Callers that begin together."""
EACH = 6
"""Dispatches of each caller, one after the other on a thread and together on a loop."""
SHORT = 0.5
"""The deadline where nothing answers."""


class Dispatching(Protocol):
    """Hands over one request, on a thread and on a loop."""

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse: ...
    def adispatch(self, request: DispatchRequest, /) -> Coroutine[Any, Any, DispatchResponse]: ...


Dispatches = Callable[[Harness, Dispatching, Sequence[DispatchRequest]], list[DispatchResponse]]


def _on_threads(
    harness: Harness, dispatcher: Dispatching, requests: Sequence[DispatchRequest]
) -> list[DispatchResponse]:
    del harness
    start = threading.Barrier(THREADS)

    def work(mine: Sequence[DispatchRequest]) -> list[DispatchResponse]:
        start.wait(_tools.PATIENCE)
        return [dispatcher.dispatch(request) for request in mine]

    shares = [requests[number::THREADS] for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [answer for each in pool.map(work, shares) for answer in each]


def _on_a_loop(
    harness: Harness, dispatcher: Dispatching, requests: Sequence[DispatchRequest]
) -> list[DispatchResponse]:
    async def main() -> list[DispatchResponse]:
        return list(await asyncio.gather(*map(dispatcher.adispatch, requests)))

    return harness.run_coroutine(main())


AT_ONCE: dict[str, Dispatches] = {"threads": _on_threads, "loop": _on_a_loop}


class ServesAtOnce:
    """Many callers at once, from outside."""

    @pytest.mark.parametrize("way", AT_ONCE)
    def test_each_of_many_at_once_has_its_own_answer(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C3: beside others each dispatch is answered as it would be alone, and is there once."""
        dispatcher = harness.dispatcher(deadline=4 * harness.deadline)
        known = [tasks.note.request(journal.path) for _ in range(THREADS)]
        first = [dispatcher.dispatch(request) for request in known]
        if not dispatcher.capabilities.deduplicate:
            known = []  # they would be further work
        fresh = [tasks.note.request(journal.path) for _ in range(THREADS * EACH)]
        mixed = [*known, *fresh]
        mixed.sort(key=lambda request: hash(request.id))

        answers = AT_ONCE[way](harness, dispatcher, mixed)

        by_request = {answer.request_id: answer for answer in answers}
        assert sorted(by_request) == sorted(request.id for request in mixed)
        assert all([*first, *answers]), [answer for answer in answers if not answer][:3]
        # At most: a backend may forget the key of what has run meanwhile.
        duplicates = {a.request_id for a in answers if a.status is DispatchStatus.DUPLICATE}
        assert duplicates <= {each.id for each in known}
        if harness.has("received") or harness.has("worker"):
            ids = [request.id for request in fresh]
            there = arrived(harness, dispatcher, journal, *ids)
            assert sorted(each for each in there if each in set(ids)) == sorted(ids)

    @pytest.mark.parametrize("way", AT_ONCE)
    def test_each_of_many_at_once_keeps_its_deadline(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C2: where nothing answers, none of those who came at once waits for another's turn."""
        with proxied(harness, deadline=SHORT, breaker=False) as (proxy, dispatcher):
            opened(dispatcher, journal)
            proxy.black_hole()
            if way == "threads":
                answers = _each_on_a_thread(dispatcher, journal)
            else:
                requests = [tasks.note.request(journal.path) for _ in range(THREADS)]
                answers = answered(SHORT, lambda: _on_a_loop(harness, dispatcher, requests))

        assert not any(answers)
        judged = {DispatchStatus.UNKNOWN, DispatchStatus.REJECTED}
        assert {answer.status for answer in answers} <= judged

    def test_some_of_many_at_once_may_be_cancelled(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C8: who is cancelled takes nothing from the others; each is told to the hooks, once."""
        dispatcher = harness.dispatcher()
        requests = [tasks.note.request(journal.path) for _ in range(THREADS * 2)]

        with told() as seen:
            left = harness.run_coroutine(_half_cancelled(dispatcher, requests, seen))

        assert all(left)
        assert sorted(answer.request_id for answer in seen) == sorted(each.id for each in requests)


def _each_on_a_thread(dispatcher: BaseDispatcher, journal: Journal) -> list[DispatchResponse]:
    requests = [tasks.note.request(journal.path) for _ in range(THREADS)]
    start = threading.Barrier(THREADS)

    def work(request: DispatchRequest) -> DispatchResponse:
        start.wait(_tools.PATIENCE)
        return answered(SHORT, lambda: dispatcher.dispatch(request))

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, requests))


async def _half_cancelled(
    dispatcher: BaseDispatcher, requests: Sequence[DispatchRequest], seen: Sequence[Any]
) -> list[DispatchResponse]:
    """Cancel every second dispatch; wait until all are told or patience ends."""
    futures = [asyncio.ensure_future(dispatcher.adispatch(request)) for request in requests]
    await asyncio.sleep(0)
    for future in futures[::2]:
        future.cancel()
    await asyncio.wait(futures)
    until = monotonic() + _tools.PATIENCE / 4
    while len(seen) < len(requests) and monotonic() < until:  # noqa: ASYNC110 - a hook tells
        await asyncio.sleep(0.01)
    return [future.result() for future in futures[1::2]]
