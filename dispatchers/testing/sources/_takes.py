"""Cases of taking rows: in order, whole, without what is left out."""

from __future__ import annotations

from dispatchers.forwarding import Source

from ._harness import SourceHarness
from ._tools import MANY, bodies, in_lanes, poison, row, settled, taken


class Takes:
    """S1 to S7."""

    def test_rows_come_as_they_were_put(self, harness: SourceHarness, source: Source) -> None:
        """S1, F8: in their order, with their bytes, be they no envelope."""
        put = [row("r3"), row("r1"), poison("r2"), row("r0")]
        harness.put(put[:2])
        harness.put(put[2:])

        found = taken(source)
        assert bodies(found) == bodies(put)
        assert [each.seq for each in found] == sorted({each.seq for each in found})
        assert {each.overdue for each in found} == {None}

    def test_lanes_are_kept(self, harness: SourceHarness, source: Source) -> None:
        """S2, F8: each row comes with the lane under which it was put."""
        harness.need("lanes")
        lanes = ["", "mail", "Ä lane with 'quotes' and %", "mail"]
        harness.put([row(f"r{n}", lane) for n, lane in enumerate(lanes)])

        assert [each.lane for each in taken(source)] == lanes

    def test_the_demand_for_deduplication_is_kept(
        self, harness: SourceHarness, source: Source
    ) -> None:
        """S3, F4: it is not in the envelope, and is asked of the backend all the same."""
        harness.need("deduplicate")
        harness.put([row("r0"), row("r1", deduplicate=True)])

        assert [each.deduplicate for each in taken(source)] == [False, True]

    def test_no_more_than_the_limit(self, harness: SourceHarness, source: Source) -> None:
        """S4, F8: the first ones."""
        put = in_lanes("a1", "a2", "b1", "a3")
        harness.put(put)

        assert bodies(taken(source, 3)) == bodies(put[:3])

    def test_lanes_are_left_out(self, harness: SourceHarness, source: Source) -> None:
        """S5, F8: with all of their rows."""
        harness.need("lanes")
        put = in_lanes("a1", "b1", "a2", "c1", "b2")
        harness.put(put)
        assert source.lead()

        found = source.take(MANY, but_lanes={"a", "c"}, but_rows=())
        assert bodies(found) == bodies([put[1], put[4]])

    def test_rows_are_left_out(self, harness: SourceHarness, source: Source) -> None:
        """S6, F8: where order within lanes is not asked for, rows wait one by one."""
        put = in_lanes("a1", "a2", "a3", "a4")
        harness.put(put)
        found = taken(source)

        again = source.take(2, but_lanes=(), but_rows=[found[0].seq, found[2].seq])
        assert bodies(again) == bodies([put[1], put[3]])

    def test_a_number_is_given_once(self, harness: SourceHarness, source: Source) -> None:
        """S7, F8: a row that comes later has a higher one, also where all others are gone."""
        harness.put([row("r0"), row("r1")])
        first = taken(source)
        source.settle(settled(first))
        harness.put([row("r2")])

        assert taken(source)[0].seq > max(each.seq for each in first)
