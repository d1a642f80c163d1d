"""Cases of signals and cancellations: once for each source, in order."""

from __future__ import annotations

from dispatchers.journals import EntryKind, Status

from ._calls import ONE, WORKFLOW, Calls, at_once, gapless


class Signals:
    """J29 to J31."""

    def test_a_signal_is_recorded_once(self, calls: Calls) -> None:
        """J29: the same request brings it once, on whatever thread; all of it is read back."""
        calls.park()

        answers = at_once(8, lambda _: calls.deliver("request-1", "ä".encode(), name="größe"))

        assert sum(answer.first for answer in answers) == 1
        [entry] = calls.entries()
        assert entry[1:7] == (EntryKind.SIGNAL, None, "größe", None, "ä".encode(), "request-1")
        assert calls.deliver("request-2", None).first, "a signal without a value was refused"
        assert calls.entries()[1].body is None

    def test_signals_are_read_in_the_order_of_recording(self, calls: Calls) -> None:
        """J30: also those that come while a turn is held."""
        calls.begin()
        calls.deliver("a")
        turn = calls.take()
        calls.deliver("b")
        calls.deliver("c", kind=EntryKind.CANCEL)

        sources = [entry.source for entry in calls.commit(turn, seen=1).entries]
        assert sources == ["b", "c"]
        gapless(calls.entries())

    def test_what_ended_takes_no_signal(self, calls: Calls) -> None:
        """J31: neither a signal nor a cancellation is recorded after the end; nor wakes it."""
        calls.park()
        calls.end()

        for kind in (EntryKind.SIGNAL, EntryKind.CANCEL):
            found = calls.deliver("late", kind=kind)
            assert (found.first, found.wake) == (False, None)
        assert calls.entries() == []

    def test_a_cancellation_may_come_first(self, calls: Calls) -> None:
        """J32: it waits for the start, as a signal does, and the first turn reads it."""
        assert calls.deliver("a", None, kind=EntryKind.CANCEL).first
        record = calls.look()
        assert (record.status, record.workflow) == (Status.EXPECTED, WORKFLOW)
        calls.begin()

        assert [entry.kind for entry in calls.take().entries] == [EntryKind.CANCEL]
        assert calls.look(ONE).status is Status.RUNNING
