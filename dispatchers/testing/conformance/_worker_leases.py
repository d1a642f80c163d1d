"""C10: leases, which are renewed by their owner alone, and deliveries of a gone worker."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import sleep
from typing import Any

import pytest

from dispatchers import Worker
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal
from dispatchers.worker import BaseWorker, Work

from ._tools import send
from ._worker_tools import (
    LONG,
    SETTLED,
    TWICE,
    by_hand,
    held,
    leased,
    stays,
    taken,
    until,
    working,
)

__all__ = ["HoldsLeases"]

SHORT = 0.5
"""Seconds of a lease that is left to run out."""
RENEWED = 2.0
"""Seconds of a lease that is renewed: a busy machine may be late by a good second."""
BEYOND = 1.5
"""Lengths of a lease after which work that is not renewed would have come again."""


class HoldsLeases:
    """C10, on backends whose leases run out."""

    def test_a_long_run_keeps_its_lease(self, harness: Harness, journal: Journal) -> None:
        """C10: no second run starts while the owner of the first is alive."""
        dispatcher = leased(harness, RENEWED)
        tasks.linger.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()

        with working(harness, dispatcher) as one, working(harness, dispatcher) as other:
            until(lambda: journal.texts)
            stays(lambda: journal.texts == ["began"], BEYOND * RENEWED)
            journal.release()
            until(lambda: "ended" in journal.texts)
            one.stopped()
            other.stopped()

        assert journal.texts == ["began", "ended"]
        assert not harness.has("received") or held(harness, dispatcher) == 0

    def test_a_renewal_that_hangs_holds_up_no_other(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C10: each lease is renewed by itself: another run keeps its own meanwhile."""
        dispatcher, over = leased(harness, SHORT), threading.Event()
        by_hand(harness, dispatcher)
        for _ in range(TWICE):
            tasks.linger.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()
        hanging = _Hanging(over)

        try:
            with working(harness, dispatcher, prepared=hanging.stand_before, concurrency=TWICE):
                until(lambda: hanging.renewed)
                # The other again and again, while the first one hangs.
                until(lambda: max(hanging.renewed.values()) > TWICE)
                over.set()
                journal.release()
        finally:
            over.set()

    def test_a_lease_begins_as_work_is_taken(self, harness: Harness, journal: Journal) -> None:
        """C10: work that has waited for longer than a lease is held for a whole one."""
        dispatcher = leased(harness, 2 * SHORT)
        send(dispatcher, journal).raise_for_error()
        owner, other = by_hand(harness, dispatcher), by_hand(harness, dispatcher)

        sleep(BEYOND * owner.lease)  # nothing happens: that is the case
        work = taken(owner)
        again = other._due(0.0)
        owner._complete(work)

        assert again is None

    def test_work_of_a_gone_worker_comes_again(self, harness: Harness, journal: Journal) -> None:
        """C10: a lease that is not renewed runs out; that is a delivery, and no attempt."""
        dispatcher = leased(harness, SHORT)
        send(dispatcher, journal, "text").raise_for_error()

        gone = taken(by_hand(harness, dispatcher))
        work = taken(worker := by_hand(harness, dispatcher))
        worker._complete(work)

        assert (gone.attempt, gone.deliveries) == (1, 1)
        assert (work.attempt, work.deliveries, work.body) == (1, 2, gone.body)

    def test_a_lost_lease_is_not_renewed(self, harness: Harness, journal: Journal) -> None:
        """C10: once another worker has the work, its former owner is told that it is lost."""
        dispatcher = leased(harness, SHORT)
        send(dispatcher, journal).raise_for_error()
        former, owner = by_hand(harness, dispatcher), by_hand(harness, dispatcher)

        late, work = taken(former), taken(owner)
        renewed = former._renew(late), owner._renew(work)
        owner._complete(work)

        assert renewed == (False, True)
        assert owner._renew(work) is False

    @pytest.mark.parametrize("way", ["_complete", "_dead_letter"])
    def test_settled_work_does_not_come_again(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C9: what is complete or dead stays so when its lease would have run out."""
        dispatcher = leased(harness, SHORT)
        send(dispatcher, journal).raise_for_error()
        worker = by_hand(harness, dispatcher)

        SETTLED[way](worker, taken(worker))
        stays(lambda: worker._due(0.0) is None, BEYOND * worker.lease)

        assert not harness.has("received") or held(harness, dispatcher) == 0
        assert not harness.has("dead") or len(harness.dead(dispatcher)) == (way == "_dead_letter")

    @pytest.mark.parametrize("way", ["_complete", "_retry", "_give_back", "_dead_letter"])
    def test_a_former_owner_settles_nothing(
        self, harness: Harness, journal: Journal, way: str
    ) -> None:
        """C10: fencing: what a late worker settles changes nothing of its successor's work."""
        dispatcher = leased(harness, SHORT)
        send(dispatcher, journal).raise_for_error()
        former, owner = by_hand(harness, dispatcher), by_hand(harness, dispatcher)

        late, work = taken(former), taken(owner)
        with suppress(Exception):  # it may raise, as long as nothing changes
            SETTLED[way](former, late)

        assert owner._renew(work) is True
        if harness.has("received"):
            assert held(harness, dispatcher) == 1
        owner._complete(work)
        assert not harness.has("received") or held(harness, dispatcher) == 0
        if dispatcher.letters is None:  # a store that is configured has what was put there above
            assert not harness.has("dead") or harness.dead(dispatcher) == []


class _Hanging:
    """Has the first renewal of a worker hang, and counts those of the others."""

    def __init__(self, over: threading.Event) -> None:
        self.renewed: dict[int, int] = {}
        """How often each work was renewed; that of the first is 0 while it hangs."""
        self._over = over

    def stand_before(self, worker: Worker) -> None:
        """Stand before the renewals of a worker on the kit."""
        assert isinstance(worker, BaseWorker)
        renew = worker._renew

        def renewing(work: Work[Any]) -> bool:
            if not self.renewed.setdefault(id(work), 0) and len(self.renewed) == 1:
                assert self._over.wait(LONG)
            self.renewed[id(work)] += 1
            return renew(work)

        vars(worker)["_renew"] = renewing
