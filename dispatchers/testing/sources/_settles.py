"""Cases of settling: only what is gone or dead leaves, and only by the one that drains."""

from __future__ import annotations

from dispatchers.forwarding import Fate, Source

from ._harness import SourceHarness
from ._tools import bodies, in_lanes, poison, row, settled, taken, wait_until


class Settles:
    """S8 to S12."""

    def test_what_is_gone_is_gone(self, harness: SourceHarness, source: Source) -> None:
        """S8, F7: and nothing else, until the store is empty."""
        put = in_lanes("a1", "a2", "b1")
        harness.put(put)
        found = taken(source)
        source.settle(settled([found[0], found[2]]) + settled([found[1]], Fate.STAYS))

        left = taken(source)
        assert bodies(left) == bodies([put[1]])
        assert not source.is_empty()
        source.settle(settled(left))
        assert source.is_empty()
        assert bodies(taken(source)) == []
        assert harness.dead() == []

    def test_what_stays_is_taken_again(self, harness: SourceHarness, source: Source) -> None:
        """S9, F7: as often as it takes, with the same bytes and the same number."""
        put = in_lanes("a1", "b1")
        harness.put(put)
        first = taken(source)
        for _ in range(30):
            source.settle(settled(taken(source), Fate.STAYS))

        again = taken(source)
        assert [(e.seq, e.body) for e in again] == [(e.seq, e.body) for e in first]
        assert not source.is_empty()
        assert harness.dead() == []

    def test_what_is_dead_is_a_dead_letter(self, harness: SourceHarness, source: Source) -> None:
        """S10, F7, O8: with its body, be it no envelope; it is not taken again."""
        put = [row("r0"), poison("r1"), row("r2")]
        harness.put(put)
        found = taken(source)
        source.settle(settled(found[:2], Fate.DEAD, "too large") + settled(found[2:], Fate.STAYS))

        assert sorted(harness.dead()) == sorted(bodies(put[:2]))
        assert bodies(taken(source)) == bodies(put[2:])

    def test_one_that_leads_no_more_settles_nothing(self, harness: SourceHarness) -> None:
        """S11, O7: what it did is done again by the one that leads now, under the same ids."""
        harness.need("leader")
        former, other = harness.source(), harness.source()
        put = in_lanes("a1", "b1", "c1")
        harness.put(put)
        found = taken(former)
        wait_until(other.lead, "no other takes over when there are no heartbeats")
        former.settle(settled(found[:1]) + settled(found[1:2], Fate.DEAD))

        assert bodies(taken(other)) == bodies(put)

    def test_what_comes_later_is_seen(self, harness: SourceHarness, source: Source) -> None:
        """S12, F10: a store that was empty is not so for ever."""
        assert source.is_empty()
        assert not taken(source)
        put = [row("r0")]
        harness.put(put)

        assert not source.is_empty()
        assert bodies(taken(source)) == bodies(put)
