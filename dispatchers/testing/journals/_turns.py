"""Cases of turns: one at a time, renewed, taken over, fenced."""

from __future__ import annotations

import time

from dispatchers.journals import Refusal, Status, Turn

from ._calls import ONE, Calls, at_once, step, until
from ._harness import JournalHarness


class Turns:
    """J8 to J15, J75."""

    def test_a_turn_has_what_its_worker_needs(self, calls: Calls) -> None:
        """J8: the record, the entries after a place, the unsent commands; the fence counts up."""
        calls.park(step(1), step(2))
        calls.sent(1)
        calls.answer(1)

        turn = calls.take(after=1)
        assert [entry.seq for entry in turn.entries] == [2, 3], "entries after place 1 are wanted"
        assert list(turn.unsent) == [step(2)], "not the commands that have not left"
        assert (turn.record.id, turn.record.fence) == (ONE, turn.fence)
        assert turn.fence == calls.look().fence == 2, "the second turn has not fence 2"

    def test_one_worker_at_a_time(self, calls: Calls, harness: JournalHarness) -> None:
        """J9: eight threads take at once; one gets the turn, the others `HELD`."""
        calls.begin()

        begun = time.monotonic()
        found = at_once(8, lambda _: calls.try_take())

        turns = sum(isinstance(each, Turn) for each in found)
        assert turns + found.count(Refusal.HELD) == 8, f"neither a turn nor held: {found}"
        if time.monotonic() - begun < harness.lease:  # else a second may be given, rightly
            assert turns == 1, f"not one turn, but {turns}"

    def test_a_turn_that_is_renewed_stays_held(self, calls: Calls, harness: JournalHarness) -> None:
        """J10: renewed every third of the lease, it is held for longer than the lease."""
        calls.begin()
        turn = calls.take()
        end = time.monotonic() + 1.5 * harness.lease

        while time.monotonic() < end:
            renewed = time.monotonic()
            assert calls.renew(turn), "a turn that was renewed was lost"
            time.sleep(harness.lease / 10)
            found = calls.try_take()
            if time.monotonic() - renewed >= harness.lease:
                return  # a machine that stands still for a lease cannot tell
            assert found is Refusal.HELD, f"a renewed turn was given to another: {found}"
        calls.commit(turn)

    def test_a_turn_that_is_not_renewed_is_given_up(self, calls: Calls) -> None:
        """J11: after the lease another takes it; the first has no effect any more."""
        calls.begin()
        lost = calls.take()
        assert calls.keeps_others_out(lost)

        turn = until(
            lambda: isinstance(found := calls.try_take(), Turn) and found,
            "a turn that is not renewed is never given to another",
        )
        assert isinstance(turn, Turn)
        assert turn.fence > lost.fence
        assert calls.renew(lost) is False, "a lost turn could be renewed"
        assert calls.try_commit(lost, step(1), state=b"lost") is Refusal.SUPERSEDED
        calls.release(lost)
        assert calls.keeps_others_out(turn), "a lost turn released its successor's"
        assert calls.entries() == [], "a superseded commit was recorded"
        assert calls.unsent() == {}
        assert calls.look().state is None

    def test_the_same_message_takes_over_at_once(self, calls: Calls) -> None:
        """J12: a wake-up that is delivered again does not wait for its own dead worker."""
        calls.begin()
        lost = calls.take(wakeup="message-1")

        assert calls.keeps_others_out(lost)
        turn = calls.take(wakeup="message-1")
        assert calls.try_commit(lost) is Refusal.SUPERSEDED
        calls.commit(turn)

    def test_a_released_turn_is_free_and_wanted(self, calls: Calls) -> None:
        """J13: another takes it at once, its own commit has no effect, the sweep finds it."""
        calls.park()
        calls.deliver("a")
        turn = calls.take()
        calls.release(turn)

        assert calls.try_commit(turn, step(1)) is Refusal.SUPERSEDED, "it was released"
        until(lambda: calls.due().get(ONE) == "unread", "a released turn is not due again")
        calls.commit(calls.take())

    def test_an_execution_that_ended_gives_no_turn(self, calls: Calls) -> None:
        """J14: `ENDED` for a take, and for the commit of a turn that was terminated meanwhile."""
        calls.park()
        turn = calls.take()
        calls.terminate()

        assert calls.try_commit(turn, step(1)) is Refusal.ENDED
        assert calls.renew(turn) is False, "the turn of an ended execution could be renewed"
        assert calls.try_take() is Refusal.ENDED
        assert calls.entries() == []

        calls.forget(time.time() + 1)
        assert calls.try_commit(turn) is Refusal.MISSING
        assert calls.try_take() is Refusal.MISSING

    def test_turns_that_end_with_their_workers_are_counted(self, calls: Calls) -> None:
        """J75: from one commit to the next; a `STUCK` keeps the count, and `resume` begins anew."""
        calls.begin()
        assert [calls.take(wakeup="m").lost for _ in range(3)] == [0, 1, 2]
        until(lambda: calls.due().get(ONE) == "orphaned", "a lost turn is never due")
        turn = calls.take()
        assert turn.lost == 3, "the sweep has found a lost turn, and it was not counted"
        calls.release(turn)
        turn = calls.take()
        assert turn.lost == 3, "a turn that is released is not lost, and changes nothing"

        calls.commit(turn, status=Status.STUCK, why="it kills its workers")
        turn = calls.take(wakeup="m")
        assert turn.lost == 3, "what is stuck for it would kill workers again"
        calls.commit(turn, step(1), keep=True)
        turn = calls.take(wakeup="m")
        assert turn.lost == 1, "a commit begins the count anew, also one of a turn that goes on"
        calls.commit(turn, status=Status.STUCK, why="it kills its workers")
        calls.resume()
        assert calls.take().lost == 0, "an execution that is resumed has a chance"

    def test_a_stuck_execution_gives_a_turn(self, calls: Calls) -> None:
        """J15: with code that is right again it goes on, and is not stuck any more."""
        calls.park(status=Status.STUCK, why="command 1 was a, is b")
        record = calls.look()
        assert (record.status, record.why) == (Status.STUCK, "command 1 was a, is b")

        calls.commit(calls.take(), step(1))
        assert (calls.look().status, calls.look().why) == (Status.RUNNING, None)
