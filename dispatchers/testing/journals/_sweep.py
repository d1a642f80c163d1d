"""Cases of the sweep: what is due is found and nothing else, what is unsent stays."""

from __future__ import annotations

import time

from dispatchers.journals import EntryKind, Status

from ._calls import ONE, Calls, child, mark, send, step, timer, until
from ._harness import JournalHarness


class Sweep:
    """J37 to J42, J76."""

    def test_each_kind_of_due_is_found(self, calls: Calls) -> None:
        """J37: a timer, unread entries, a lost turn, one of what is stuck, an unsent command."""
        timed = _parked_with_a_timer(calls)
        calls.park(step(1), execution="shop.checkout/unread")
        calls.sent(1, execution="shop.checkout/unread")
        calls.answer(1, execution="shop.checkout/unread")
        calls.begin("shop.checkout/begun")
        calls.begin("shop.checkout/orphaned")
        calls.take("shop.checkout/orphaned")
        calls.park(execution="shop.checkout/retried", status=Status.STUCK, why="x")
        calls.take("shop.checkout/retried")
        calls.park(step(1), execution="shop.checkout/unsent")

        assert _due_within(calls, 6) == {
            timed: "timer",
            "shop.checkout/unread": "unread",
            "shop.checkout/begun": "unread",
            "shop.checkout/orphaned": "orphaned",
            "shop.checkout/retried": "orphaned",
            "shop.checkout/unsent": "unsent",
        }

    def test_nothing_else_is_due(self, calls: Calls, harness: JournalHarness) -> None:
        """J38: neither what is parked, held, expected, ended or stuck, nor what has left."""
        later = time.time() + 1000
        calls.park(timer(1, later), execution="shop.checkout/parked", wake_at=later)
        calls.park(step(1), execution="shop.checkout/sent")
        calls.sent(1, execution="shop.checkout/sent")
        calls.park(step(1), execution="shop.checkout/again")
        calls.sent(execution="shop.checkout/again", again={1: later})
        calls.deliver("a", execution="shop.checkout/expected")
        calls.park(execution="shop.checkout/ended")
        calls.deliver("a", execution="shop.checkout/ended")
        calls.end(execution="shop.checkout/ended")
        calls.park(execution="shop.checkout/stuck", status=Status.STUCK, why="x")
        calls.deliver("a", execution="shop.checkout/stuck")
        calls.park(mark(1), execution="shop.checkout/idle")
        calls.begin("shop.checkout/held")
        calls.deliver("a", execution="shop.checkout/held")
        held = calls.take("shop.checkout/held")

        # As long as anything could become due; the one that is held is renewed.
        end = time.monotonic() + 1.5 * harness.unread_after
        while time.monotonic() < end:
            renewed = time.monotonic()
            assert calls.renew(held)
            due = calls.due()
            if time.monotonic() - renewed < harness.lease:  # else it is orphaned, rightly
                assert due == {}
            time.sleep(harness.unread_after / 10)

    def test_what_is_due_counts_as_woken(self, calls: Calls, harness: JournalHarness) -> None:
        """J39: another sweep finds it again only when no turn has followed for a while."""
        past = time.time() - 1
        for number in range(3):
            name = f"shop.checkout/{number}"
            calls.park(execution=name, wake_at=past)

        begun = time.monotonic()
        first = calls.due(limit=2)
        rest = calls.due()
        if time.monotonic() - begun < harness.unread_after:  # else they count as lost, rightly
            assert (len(first), len(rest)) == (2, 1), f"limit 2 gave {first}, then {rest}"
            assert not first.keys() & rest.keys()
        assert len(_due_within(calls, 3)) == 3, "a wake-up that was lost is not repeated"

    def test_what_was_woken_in_vain_waits_longer(
        self, calls: Calls, harness: JournalHarness
    ) -> None:
        """J76: for as long as it has waited already (`rules.pause_after`)."""
        calls.park(step(1), at=time.time() - 100)
        assert calls.due() == {ONE: "unsent"}

        end = time.monotonic() + 1.3 * harness.unread_after
        while time.monotonic() < end:
            assert calls.due() == {}, (
                "it had waited for 100 s and is woken once more at once: behind other work that "
                "takes long, wake-ups would be all that there is"
            )
            time.sleep(harness.unread_after / 10)

    def test_unsent_commands_stay_until_they_left(
        self, calls: Calls, harness: JournalHarness
    ) -> None:
        """J40: whole, over takeovers and in a journal opened anew; in the order of commands."""
        calls.park(step(1), timer(2, time.time() + 1000), send(3), child(4), mark(5))
        other = Calls(harness.journal())

        assert [each.command for each in other.unsent().values()] == [step(1), send(3), child(4)]
        assert list(calls.take(wakeup="a").unsent) == [step(1), send(3), child(4)]
        assert list(calls.take(wakeup="a").unsent) == [step(1), send(3), child(4)]
        other.sent(3, 1, 99)
        assert list(calls.unsent()) == [4]
        other.sent(4)
        assert calls.unsent() == {}

    def test_a_next_try_is_kept(self, calls: Calls) -> None:
        """J41: `again` sets the instant of the next try; what left without one is not unsent."""
        now = time.time()
        calls.park(step(1), step(2), step(3), at=now)
        assert all(each.next_try > now for each in calls.unsent().values()), (
            "a new command is due at once: its own turn has no time to hand it over"
        )

        calls.sent(1, again={2: now + 500.5, 77: now})
        unsent = calls.unsent()
        assert sorted(unsent) == [2, 3], "a command that has left was kept"
        assert (unsent[2].next_try, unsent[2].left) == (now + 500.5, False)
        calls.sent(3, again={3: now + 60.5})
        forgotten = calls.unsent().get(3)
        assert forgotten, "a command that left, and may be forgotten, has to leave once more"
        assert (forgotten.next_try, forgotten.left) == (now + 60.5, True)
        calls.sent(again={3: now + 70.5})
        assert calls.unsent()[3].left, "it has left, whatever becomes of it the next time"
        calls.sent(again={2: now - 1})
        assert calls.due() == {ONE: "unsent"}

    def test_what_others_wait_for_leaves_after_the_end(self, calls: Calls) -> None:
        """J42: a `SEND` always, a `CHILD` of what completed; steps of the ended do not."""
        kept = {}
        for status in (Status.COMPLETED, Status.FAILED):
            name = f"shop.checkout/{status.name}"
            calls.park(step(1), send(2), child(3), execution=name)
            calls.end(status, name)
            kinds = {each.command.kind for each in calls.unsent(name).values()}
            kept[status] = kinds
        assert kept == {
            Status.COMPLETED: {EntryKind.SEND, EntryKind.CHILD},
            Status.FAILED: {EntryKind.SEND},
        }
        names = {f"shop.checkout/{status.name}" for status in kept}
        found = _due_within(calls, 2)
        assert (set(found), set(found.values())) == (names, {"unsent"})


def _parked_with_a_timer(calls: Calls) -> str:
    """Park an execution whose timer is due soon; returns its id."""
    for number in range(6):
        name = f"shop.checkout/timer-{number}"
        soon = time.time() + 0.2 * 3**number
        if not calls.park(timer(1, soon), execution=name, wake_at=soon).kept:
            return name
        # So slow a machine that the commit fired it already.
        calls.terminate(name)
    raise AssertionError("a timer of a minute is due at once")


def _due_within(calls: Calls, count: int) -> dict[str, str]:
    """Sweep until so many are due; returns the reason that each had first."""
    found: dict[str, str] = {}

    def swept() -> bool:
        found.update({**calls.due(), **found})
        return len(found) >= count

    until(swept, lambda: f"{count} executions should be due, only these are: {found}")
    return found
