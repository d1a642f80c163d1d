"""Cases of who drains the store: one at a time, known by its heartbeats."""

from __future__ import annotations

import time

from dispatchers.forwarding import Source
from dispatchers.testing._others import in_fork, results

from . import _workers
from ._harness import SourceHarness
from ._tools import POLL, bodies, row, taken, wait_until

DAY = 86400.0
PROCESSES = 3


class Leads:
    """S13 to S20."""

    def test_one_drains(self, harness: SourceHarness) -> None:
        """S13, O7: the others are told that it is not them."""
        harness.need("leader")
        first, second, third = harness.source(), harness.source(), harness.source()

        assert [first.lead(), second.lead(), third.lead(), first.lead()] == [1, 0, 0, 1]

    def test_heartbeats_keep_the_others_out(self, harness: SourceHarness) -> None:
        """S14, O7: for longer than a lease, as long as they come."""
        harness.need("leader")
        leader, other = harness.source(), harness.source()
        assert leader.lead()
        begun = time.monotonic()
        until = begun + 3 * leader.lease
        while (now := time.monotonic()) < until:
            stays, other_leads = leader.lead(), other.lead()
            # This machine stood still: the other one is right to take over.
            if time.monotonic() - begun > leader.lease / 2:
                return
            begun = now
            assert stays, "it gave up although it sends heartbeats"
            assert not other_leads, "another took over in spite of heartbeats"
            time.sleep(POLL)

    def test_another_leads_at_once_after_leave(self, harness: SourceHarness) -> None:
        """S15, O11: a process that ends well costs no lease."""
        harness.need("leader")
        leader, other = harness.source(), harness.source()
        assert leader.lead()
        assert not other.lead()
        leader.leave()

        assert other.lead()
        assert not leader.lead()

    def test_only_the_one_that_leads_can_leave(self, harness: SourceHarness) -> None:
        """S16, O7: another that ends ends nothing."""
        harness.need("leader")
        leader, other = harness.source(), harness.source()
        assert leader.lead()
        assert not other.lead()
        other.leave()

        assert not harness.source().lead()
        assert leader.lead()

    def test_another_takes_over_without_heartbeats(self, harness: SourceHarness) -> None:
        """S17, O7, O11: after a lease, and the former one is told that it leads no more."""
        harness.need("leader")
        former, other = harness.source(), harness.source()
        put = [row("r0")]
        harness.put(put)
        assert taken(former)
        wait_until(other.lead, "no other takes over when there are no heartbeats")

        assert not former.lead()
        assert bodies(taken(other)) == bodies(put), "what the former one took is stuck"

    def test_a_clock_that_is_set_changes_nothing(self, harness: SourceHarness) -> None:
        """S18, O9: neither forward nor back."""
        harness.need("leader", "clock")
        leader, other = harness.source(), harness.source()
        assert leader.lead()
        assert not other.lead()
        with harness.stepped(DAY):
            assert leader.lead()
            assert not other.lead(), "a clock that was set forward ended a lease"
        with harness.stepped(-DAY):
            wait_until(other.lead, "a clock that was set back prolonged a lease")

    def test_of_several_processes_one_leads(self, harness: SourceHarness) -> None:
        """S19, O7: also where all begin at the same moment."""
        harness.need("leader", "processes")

        with _workers.others(harness.opener, _workers.lead_once, PROCESSES) as started:
            led = results(started)
        assert sum(led) == 1, f"{sum(led)} of {PROCESSES} processes lead"

    def test_a_forked_child_does_not_lead(self, harness: SourceHarness, source: Source) -> None:
        """S20, O15: its parent does."""
        harness.need("leader", "fork")
        assert source.lead()

        assert in_fork(lambda: int(source.lead())) == 0
        assert source.lead()
