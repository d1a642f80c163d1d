"""C2: handing over ends within its deadline, whatever the network does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchResponse, DispatchStatus
from dispatchers.testing import tasks
from dispatchers.testing._proxy import FaultProxy
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import WAYS
from ._tools import DEADLINE, answered, arrived, opened, send

__all__ = ["CLOSING", "NeverHangs", "proxied"]

CLOSING = 0.5
"""Seconds that closing gets."""
HASTE = 0.01
"""Seconds for those of a hundred calls that are not measured at leisure."""
FAULTS: dict[str, Callable[[FaultProxy], None]] = {
    "refused": FaultProxy.refuse,
    "black hole": FaultProxy.black_hole,
    "never accepted": lambda proxy: proxy.black_hole(accept=False),
    "stalled": FaultProxy.stall,
    "reset": FaultProxy.reset,
    "slow": lambda proxy: proxy.slow_drip(2.0),
}


@contextmanager
def proxied(harness: Harness, **options: Any) -> Generator[tuple[FaultProxy, BaseDispatcher]]:
    """A dispatcher with a proxy before its server, healthy so far."""
    harness.need("network")
    host, port = harness.upstream
    with FaultProxy(host, port) as proxy:
        dispatcher = harness.dispatcher_at(*proxy.address, **{"deadline": DEADLINE, **options})
        yield proxy, dispatcher
        proxy.heal()
        answered(CLOSING, lambda: dispatcher.close(CLOSING))


class NeverHangs:
    """C2, from outside."""

    @pytest.mark.parametrize("fault", FAULTS)
    def test_no_fault_outlasts_the_deadline(
        self, harness: Harness, journal: Journal, fault: str
    ) -> None:
        """C2: the first, the second and the hundredth call answer within the deadline."""
        with proxied(harness) as (proxy, dispatcher):
            FAULTS[fault](proxy)

            def call() -> DispatchResponse:
                return answered(DEADLINE, lambda: send(dispatcher, journal))

            # The hundredth as well: leaked connections or threads show only after many calls.
            answers = [call(), call(), *_hasty(dispatcher, journal), call()]

        assert not any(answers)

    @pytest.mark.parametrize("fault", FAULTS)
    def test_no_fault_outlasts_the_deadline_of_a_connection(
        self, harness: Harness, journal: Journal, fault: str
    ) -> None:
        """C2: a connection that worked before costs no more than a new one when it fails."""
        with proxied(harness) as (proxy, dispatcher):
            opened(dispatcher, journal)
            FAULTS[fault](proxy)

            answers = [answered(DEADLINE, lambda: send(dispatcher, journal)) for _ in range(3)]

        assert not any(answers)

    @pytest.mark.parametrize("fault", FAULTS)
    def test_no_fault_outlasts_the_deadline_when_awaited(
        self, harness: Harness, journal: Journal, fault: str
    ) -> None:
        """C2: `adispatch` keeps the deadline as `dispatch` does."""
        request = tasks.note.request(journal.path)
        with proxied(harness) as (proxy, dispatcher):
            FAULTS[fault](proxy)

            async def call() -> list[DispatchResponse]:
                return [await dispatcher.adispatch(request) for _ in range(2)]

            answers = answered(2 * DEADLINE, lambda: harness.run_coroutine(call()))

        assert not any(answers)

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_batch_has_one_deadline(self, harness: Harness, journal: Journal, fault: str) -> None:
        """C2: `dispatch_many` costs one deadline, not one for each item."""
        requests = [tasks.note.request(journal.path) for _ in range(10)]
        with proxied(harness) as (proxy, dispatcher):
            FAULTS[fault](proxy)

            answers = answered(DEADLINE, lambda: dispatcher.dispatch_many(requests))

        assert [answer.ok for answer in answers] == [False] * len(requests)

    def test_it_works_again_once_the_fault_is_gone(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C2: what hung does not stay in the way: with the server back, dispatches succeed."""
        with proxied(harness, deadline=2.0) as (proxy, dispatcher):
            proxy.black_hole()
            hung = tasks.note.options(dispatcher=dispatcher, deadline=0.1).dispatch(journal.path)
            proxy.heal()

            for _ in range(2):  # the first may meet what is left of the fault
                send(dispatcher, journal)
            opened(dispatcher, journal)

        assert not hung.ok

    @pytest.mark.parametrize("way", WAYS)
    def test_a_connection_gone_stale_is_replaced(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C2: a server that was restarted between two calls costs none of them."""
        with proxied(harness, deadline=harness.deadline) as (proxy, dispatcher):
            before = opened(dispatcher, journal)
            proxy.restart()

            after = WAYS[way](harness, dispatcher, tasks.note.request(journal.path))
            there = _arrived_of(harness, journal, before, after)

        assert after.ok, after
        assert there == {before.request_id, after.request_id}

    def test_a_backend_that_stalls_costs_the_deadline(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C2: a backend that does not answer costs the deadline, in each way of dispatching."""
        if harness.has("network"):
            pytest.skip("the network's faults show it")
        harness.need("stall")
        dispatcher = harness.dispatcher(deadline=DEADLINE)
        requests = [tasks.note.request(journal.path) for _ in range(3)]

        with harness.stalled(dispatcher):
            answers = [answered(DEADLINE, lambda: send(dispatcher, journal)) for _ in range(3)]
            later = answered(
                DEADLINE, lambda: harness.run_coroutine(dispatcher.adispatch(requests[0]))
            )
            batch = answered(DEADLINE, lambda: dispatcher.dispatch_many(requests))

        assert not any([*answers, later, *batch])
        opened(dispatcher, journal)

    def test_a_requests_own_deadline_rules(self, harness: Harness, journal: Journal) -> None:
        """C2: the deadline of a request beats the dispatcher's."""
        with proxied(harness, deadline=60.0) as (proxy, dispatcher):
            proxy.black_hole()
            hasty = tasks.note.options(dispatcher=dispatcher, deadline=DEADLINE)

            response = answered(DEADLINE, lambda: hasty.dispatch(journal.path))

        assert not response.ok

    def test_the_deadline_never_cuts_a_run(self, harness: Harness, journal: Journal) -> None:
        """C2: what runs during the call runs to its end, however long that takes."""
        dispatcher = harness.dispatcher(deadline=0.05)
        if not dispatcher.capabilities.runs_here:
            pytest.skip("the work does not run during the call")
        request = tasks.sleep.request(journal.path, 0.2)

        answers = [
            dispatcher.dispatch(request),
            harness.run_coroutine(dispatcher.adispatch(request)),
        ]

        assert [each.status for each in answers] == [DispatchStatus.EXECUTED] * 2
        assert journal.texts == ["slept", "slept"]


def _arrived_of(harness: Harness, journal: Journal, *answers: DispatchResponse) -> set[str]:
    """Return which of the work is there, looked at past the proxy; all where none can look."""
    ids = [each.request_id for each in answers]
    if not (harness.has("received") or harness.has("worker")):
        return set(ids)
    return set(ids) & set(arrived(harness, harness.dispatcher(), journal, *ids))


def _hasty(dispatcher: BaseDispatcher, journal: Journal) -> list[DispatchResponse]:
    """Ninety-seven calls that are in a hurry."""
    note = tasks.note.options(dispatcher=dispatcher, deadline=HASTE)
    return [answered(HASTE, lambda: note.dispatch(journal.path)) for _ in range(97)]
