"""Cases of timers: fired when they are due, in the order of their instants."""

from __future__ import annotations

import time

from ._calls import Calls, in_short, step, timer, until


class Timers:
    """J33 to J36."""

    def test_timers_fire_in_the_order_of_their_instants(self, calls: Calls) -> None:
        """J33: those that are due, of one instant the lower number first, each once."""
        now = time.time()
        soon = now + 0.3
        late = now + 1000
        timers = [timer(1, late), timer(2, soon), timer(3, soon - 0.1), timer(4, soon)]
        calls.begin()
        calls.commit(calls.take(wakeup="a"), *timers, wake_at=soon - 0.1)
        until(lambda: time.time() > soon, "the clock stands still")

        # Taken over: on a slow machine the commit fired some already, and kept its turn.
        fired = in_short(calls.take(wakeup="a").entries)[4:]
        assert fired == [("FIRED", 3), ("FIRED", 2), ("FIRED", 4)], f"fired: {fired}"
        assert all(entry.at >= soon - 0.1 for entry in calls.entries(after=4))
        assert len(calls.take(wakeup="a").entries) == 7, "a timer fired twice"

    def test_a_timer_never_fires_early(self, calls: Calls) -> None:
        """J34: not before its instant, neither by a take nor by a commit."""
        later = time.time() + 1000
        committed = calls.park(timer(1, later), wake_at=later)

        assert (list(committed.entries), committed.kept) == ([], False)
        assert in_short(calls.take().entries) == [("TIMER", 1)]
        assert calls.due() == {}, "a timer that is not due is due"

    def test_a_commit_fires_what_is_due(self, calls: Calls) -> None:
        """J35: also a timer of that very commit, so that the turn goes on with it."""
        past = time.time() - 1
        committed = calls.park(timer(1, past), step(2), wake_at=past)

        assert in_short(committed.entries) == [("FIRED", 1)]
        assert committed.kept, "the turn was released though a timer has fired"

    def test_a_timer_that_is_not_awaited_does_not_fire(self, calls: Calls) -> None:
        """J36: one before `wake_at` was cancelled; without `wake_at` there is none to wait for."""
        past = time.time() - 10
        committed = calls.park(timer(1, past), timer(2, past + 5), wake_at=past + 5)
        assert in_short(committed.entries) == [("FIRED", 2)], "a cancelled timer fired"

        calls.park(timer(1, past), execution="shop.checkout/2", wake_at=None)
        assert in_short(calls.take("shop.checkout/2").entries) == [("TIMER", 1)]
