"""Cases of resume and restart: the entries that are kept, under new places."""

from __future__ import annotations

import time

from dispatchers.journals import EntryKind, Refusal, Status, rules

from ._calls import ONE, Calls, child, gapless, mark, send, step, timer


class Resume:
    """J49 to J55, J72 and J73."""

    def test_a_failed_execution_forgets_its_last_failure(self, calls: Calls) -> None:
        """J49: the command that failed and those issued since; other answers are kept."""
        calls.park(step(1), step(2), step(3))
        calls.answer(1, b"one")
        calls.answer(2, b"{}", kind=EntryKind.FAILED)
        calls.deliver("a")
        calls.answer(3, b"three")
        calls.commit(calls.take(), step(4), send(5))
        calls.sent(1, 2, 3, 4)
        calls.answer(4)
        calls.end(Status.FAILED, output=b"{}", why="declined")

        found = calls.resume()
        assert found.first
        assert found.wake is not None
        assert found.wake.execution == ONE
        gapless(calls.entries())
        assert [(e.kind.name, e.number, e.body) for e in calls.entries()] == [
            ("STEP", 1, b"envelope 1"),
            ("STEP", 3, b"envelope 3"),
            ("DONE", 1, b"one"),
            ("SIGNAL", None, b"1"),
            ("DONE", 3, b"three"),
        ]
        record = calls.look()
        assert (record.status, record.output, record.why) == (Status.RUNNING, None, None)
        assert (record.seen, record.head, record.wake_at) == (0, 5, None)
        assert (record.finished_at, record.generation) == (None, 1)
        assert calls.unsent() == {}, "a command that was forgotten would still leave"

    def test_what_was_under_way_at_the_end_is_issued_anew(self, calls: Calls) -> None:
        """J50: steps of an ended execution do not run: resumed, its code issues them again."""
        calls.park(step(1), step(2), child(3), mark(4), timer(5, time.time() + 1000))
        calls.answer(1)
        calls.terminate()
        assert calls.is_answered(2)

        assert calls.resume().first
        assert calls.kinds() == [("STEP", 1), ("MARK", 4), ("TIMER", 5), ("DONE", 1)]
        calls.commit(calls.take(), step(2), child(3))
        assert sorted(calls.unsent()) == [2, 3]
        assert calls.answer(2).first, "a command that was issued anew cannot be answered"

    def test_a_cancelled_execution_forgets_its_cancellation(self, calls: Calls) -> None:
        """J51: with the commands issued since; signals stay, a second cancel is recorded."""
        calls.park(step(1))
        calls.answer(1)
        calls.deliver("c", None, kind=EntryKind.CANCEL)
        calls.commit(calls.take(), step(2))
        calls.answer(2)
        calls.deliver("s")
        calls.end(Status.CANCELLED, why="cancelled")

        assert calls.resume().first
        assert calls.kinds() == [("STEP", 1), ("DONE", 1), ("SIGNAL", None)]
        assert calls.deliver("c-2", None, kind=EntryKind.CANCEL).first

    def test_resume_from_a_command(self, calls: Calls) -> None:
        """J52: it and all later ones are deleted with their answers; earlier ones are kept."""
        calls.park(step(1), step(2), step(3))
        for number in (3, 2, 1):
            calls.answer(number)
        calls.end(Status.FAILED)

        assert calls.resume(number=2).first
        assert calls.kinds() == [("STEP", 1), ("DONE", 1)]
        assert not calls.answer(3).first, "a deleted command was answered"

    def test_a_stuck_execution_keeps_all(self, calls: Calls) -> None:
        """J53: steps that are under way still answer; the turn that was at it has no effect."""
        calls.park(step(1), step(2))
        calls.answer(1)
        calls.commit(calls.take(), status=Status.STUCK, why="x")
        turn = calls.take()

        assert calls.resume().first
        assert calls.try_commit(turn, step(3)) is Refusal.SUPERSEDED
        assert calls.kinds() == [("STEP", 1), ("STEP", 2), ("DONE", 1)]
        assert calls.answer(2).first
        calls.commit(calls.take())

        assert not calls.resume().first, "a running execution was resumed"
        calls.end()
        assert not calls.resume().first, "a completed execution was resumed"
        assert calls.look().status is Status.COMPLETED

    def test_a_step_that_was_forgotten_answers_nothing(self, calls: Calls) -> None:
        """J72: it runs on, and its number is issued anew: only the new request answers."""
        calls.park(step(1, generation=0), step(2, generation=0))
        calls.answer(1, source=rules.request_id(ONE, 1))
        calls.terminate()
        calls.resume()
        late, new = rules.request_id(ONE, 2), rules.request_id(ONE, 2, 1)
        calls.commit(calls.take(), step(2, generation=1))

        assert calls.is_answered(2, source=late), "a step that was forgotten would run"
        assert not calls.is_answered(2, source=new), "a step that is awaited would not run"
        found = calls.answer(2, b"late", source=late)
        assert (found.first, found.wake) == (False, None), "a step that was forgotten has answered"
        assert calls.answer(2, b"new", source=new).first
        assert calls.entries()[-1].body == b"new"

    def test_what_resume_keeps_still_answers(self, calls: Calls) -> None:
        """J73: steps and children that were issued before it, and are awaited still."""
        calls.park(step(1, generation=0), child(2, generation=0), step(3, generation=0))
        self._resumed_from(calls, 3)
        calls.commit(calls.take(), step(3, generation=1), child(4, generation=1))
        self._resumed_from(calls, 5)

        former = {3: rules.request_id(ONE, 3, 1), 4: f"shop.child/{rules.request_id(ONE, 4, 1)}"}
        sources = {
            1: rules.request_id(ONE, 1),
            2: f"shop.child/{rules.request_id(ONE, 2)}",
            **former,
        }
        for number, source in sources.items():
            assert not calls.is_answered(number, source=source)
            assert calls.answer(number, source=source).first, f"command {number} is not answered"

    def _resumed_from(self, calls: Calls, number: int) -> None:
        calls.commit(calls.take(), status=Status.STUCK, why="x")
        assert calls.resume(number=number).first

    def test_a_restart_begins_with_an_empty_journal(self, calls: Calls) -> None:
        """J54: numbers go on, unread signals stay; steps of before are answered by none."""
        calls.park(step(1), send(2), mark(3))
        calls.deliver("read", b"read")
        calls.deliver("fed", b"fed")
        calls.answer(1)
        turn = calls.take()
        calls.deliver("new", b"new")
        calls.deliver("stop", None, kind=EntryKind.CANCEL)
        committed = calls.commit(
            turn, send(4), restart=b"again", unread=[5], at=1e9, state=b"s", version=2
        )

        assert committed.wake is not None, "a restarted execution is not woken"
        assert committed.wake.execution == ONE
        assert not committed.kept
        kept = calls.entries()
        gapless(kept)
        assert [(e.kind.name, e.body) for e in kept] == [
            ("SIGNAL", b"fed"),
            ("SIGNAL", b"new"),
            ("CANCEL", None),
        ]
        record = calls.look()
        assert (record.input, record.first, record.generation) == (b"again", 4, 1)
        assert record.version == 2, "a restart goes on with the version that its commit names"
        assert (record.head, record.seen, record.started_at) == (3, 0, 1e9)
        assert (record.status, record.state, record.wake_at) == (Status.RUNNING, b"s", None)
        assert record.created_at != record.started_at
        assert sorted(calls.unsent()) == [2, 4], "work that was sent off is lost, or a step leaves"
        assert calls.is_answered(1), "a step of before the restart would run"
        assert not calls.answer(1).first, "a step of before the restart was answered"
        turn = calls.take()
        assert len(turn.entries) == 3
        calls.commit(turn, step(5))
        assert calls.answer(5).first

    def test_a_restart_remembers_sources(self, calls: Calls) -> None:
        """J55: a signal that is delivered again after a restart is not seen twice."""
        calls.park()
        calls.deliver("read")
        calls.commit(calls.take(), restart=b"again")

        assert not calls.deliver("read").first, "a signal was recorded twice"
        assert calls.deliver("other").first
        assert [entry.source for entry in calls.entries()] == ["other"]
        assert calls.look().version == 1, "a commit that names no version has changed it"
