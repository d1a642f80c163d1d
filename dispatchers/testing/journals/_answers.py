"""Cases of answers: the first one stands, and wakes once."""

from __future__ import annotations

from time import monotonic

from dispatchers.journals import EntryKind, Status

from ._calls import ONE, TIMEOUT, Calls, at_once, done, gapless, local, step, until
from ._harness import JournalHarness


class Answers:
    """J22 to J28, J74."""

    def test_the_first_answer_stands(self, calls: Calls) -> None:
        """J22: a second one is told so, and changes nothing; failures are answers, too."""
        calls.park(step(1), step(2))

        assert calls.answer(1, b"first").first
        assert not calls.answer(1, b"second").first
        assert calls.answer(2, b"{}", kind=EntryKind.FAILED).first
        assert not calls.answer(2, b"late").first
        bodies = [(e.kind, e.number, e.body) for e in calls.entries(after=2)]
        assert bodies == [(EntryKind.DONE, 1, b"first"), (EntryKind.FAILED, 2, b"{}")]

    def test_what_is_answered_leaves_no_more(self, calls: Calls) -> None:
        """J74: nor is it told when to leave again; a dispatcher may have forgotten it."""
        calls.park(step(1), step(2))

        calls.answer(1)

        assert sorted(calls.unsent()) == [2], "a step that is answered would leave once more"
        calls.journal.sent(ONE, [], again={1: 0.0, 2: 0.0}, timeout=TIMEOUT)
        assert sorted(calls.unsent()) == [2]

    def test_a_turns_own_answer_is_no_exception(self, calls: Calls) -> None:
        """J23: a local step's answer in a commit stands as well, and does not replace another."""
        calls.begin()
        turn = calls.take()
        calls.commit(turn, local(1), local(2), answers=[(1, done(b"first"))])
        assert not calls.answer(1, b"second").first
        assert calls.answer(2, b"outside").first
        calls.commit(turn, seen=2, answers=[(2, done(b"late"))])

        assert [e.body for e in calls.entries(after=2)] == [b"first", b"outside"]

    def test_one_of_eight_threads_answers(self, calls: Calls) -> None:
        """J24: the same command answered on eight threads at once has one answer."""
        calls.park(step(1))

        answers = at_once(8, lambda index: calls.answer(1, b"%d" % index))

        firsts = [index for index, answer in enumerate(answers) if answer.first]
        assert len(firsts) == 1, f"{len(firsts)} answers are `first`"
        [index] = firsts
        [entry] = calls.entries(after=1)
        assert entry.body == b"%d" % index, "the recorded answer is not the one that was `first`"

    def test_answers_to_nothing_are_discarded(self, calls: Calls) -> None:
        """J25: no such command, or an execution that has ended: not first, nothing recorded."""
        calls.park(step(1))
        assert not calls.answer(7).first, "a command that was never recorded was answered"
        calls.end()

        found = calls.answer(1)
        assert (found.first, found.wake) == (False, None)
        assert calls.kinds() == [("STEP", 1)]

    def test_answers_wake_once(self, calls: Calls, harness: JournalHarness) -> None:
        """J26: further entries give no wake while one is under way; a lost one is repeated."""
        calls.park(step(1), step(2), step(3), step(4))

        begun = monotonic()
        wake = calls.answer(1).wake
        assert wake is not None, "an answer gives no wake"
        assert (wake.execution, wake.dispatcher) == (ONE, "default")
        further = [calls.answer(2).wake, calls.deliver("a").wake]
        if monotonic() - begun < harness.unread_after:  # else the first counts as lost, rightly
            assert further == [None, None], "a second wake, though one is under way"
        assert calls.answer(1).wake is not None, "a redelivery whose wake-up may be lost gets none"
        until(
            lambda: calls.deliver(f"source-{len(calls.entries())}").wake,
            "a wake-up that no turn has followed never counts as lost",
        )
        turn = calls.take()
        assert calls.answer(3).wake is None, "a turn is held: its commit returns what arrived"
        last = calls.commit(turn).entries[-1].seq
        calls.commit(turn, seen=last)
        assert calls.answer(4).wake is not None, "a turn has followed: the next answer wakes"

    def test_a_step_asks_whether_it_need_run(self, calls: Calls) -> None:
        """J27: not once it is answered, its execution has ended, or nothing is there."""
        calls.park(step(1), step(2))
        calls.answer(1)

        assert calls.is_answered(1)
        assert not calls.is_answered(2), "a step that is awaited would not run"
        assert calls.is_answered(3), "there is no such command"
        assert calls.is_answered(1, "shop.checkout/none")
        calls.commit(calls.take(), status=Status.STUCK, why="x")
        assert not calls.is_answered(2), "a stuck execution still awaits its steps"
        calls.terminate()
        assert calls.is_answered(2), "its execution has ended"

    def test_eight_writers_leave_no_gap(self, calls: Calls) -> None:
        """J28: signals and answers on eight threads, and a turn's commits, have places 1, 2, 3."""
        calls.park(*[step(number) for number in range(1, 81)])

        def write(index: int) -> None:
            for number in range(10):
                if index:
                    calls.answer(10 * index + number)
                    calls.deliver(f"{index}-{number}")
                else:
                    calls.commit(calls.take(wakeup="mine"), keep=True)

        at_once(8, write)

        entries = calls.entries()
        gapless(entries)
        assert len(entries) == 80 + 7 * 20, "entries were lost or doubled"
        assert {e.number for e in entries if e.kind is EntryKind.DONE} == set(range(10, 80))
