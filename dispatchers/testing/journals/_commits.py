"""Cases of commits: whole, in order, with what arrived meanwhile."""

from __future__ import annotations

import time

from dispatchers.journals import EntryKind, Refusal, Status

from ._calls import Calls, done, gapless, in_short, local, mark, send, step, timer


class Commits:
    """J16 to J21."""

    def test_all_of_a_commit_is_read_back(self, calls: Calls) -> None:
        """J16: commands, answers, state and the instant of the next timer, exactly."""
        later = time.time() + 86400.125
        commands = (step(1), send(2), timer(3, later), local(4), mark(5, "neu: ä"))
        answers = [(4, done(b'{"rate":1.25}'))]
        calls.park(*commands, answers=answers, state=b'{"stage":"one"}', wake_at=later, at=17.25)

        entries = calls.entries()
        gapless(entries)
        assert [(e.kind, e.number, e.name, e.digest, e.body) for e in entries[:5]] == [
            (c.kind, c.number, c.name, c.digest, c.body) for c in commands
        ]
        assert (entries[5].kind, entries[5].number) == (EntryKind.DONE, 4)
        assert entries[5].body == b'{"rate":1.25}'
        assert {entry.at for entry in entries[:5]} == {17.25}
        assert {entry.source for entry in entries} == {None}
        record = calls.look()
        assert (record.state, record.wake_at, record.head) == (b'{"stage":"one"}', later, 6)
        assert [each.command for each in calls.unsent().values()] == [step(1), send(2)]

    def test_what_is_not_said_stays(self, calls: Calls) -> None:
        """J17: no state leaves the old one; no timer means that none is awaited."""
        calls.park(state=b"1", wake_at=time.time() + 1000)
        calls.commit(calls.take())

        record = calls.look()
        assert (record.state, record.wake_at) == (b"1", None)

    def test_a_commit_returns_what_arrived(self, calls: Calls) -> None:
        """J18: entries after `seen` that are not commands, in order; the turn is kept for them."""
        calls.park(step(1), step(2))
        turn = calls.take()
        calls.answer(2)
        calls.deliver("a")
        committed = calls.commit(turn, step(3), local(4), answers=[(4, done())])

        expected = [("DONE", 2), ("SIGNAL", None), ("DONE", 4)]
        assert in_short(committed.entries) == expected
        assert committed.kept, "a turn with unread entries was released"
        assert calls.keeps_others_out(turn)
        last = committed.entries[-1].seq
        assert last == calls.look().head

        committed = calls.commit(turn, seen=last)
        assert (list(committed.entries), committed.kept) == ([], False)
        calls.commit(calls.take(after=last))

    def test_a_turn_can_be_kept(self, calls: Calls) -> None:
        """J19: with `keep` the turn goes on though nothing arrived."""
        calls.begin()
        turn = calls.take()

        assert calls.commit(turn, step(1), keep=True).kept
        assert calls.keeps_others_out(turn)
        assert not calls.commit(turn, seen=1).kept
        calls.take()

    def test_a_commit_is_all_or_nothing(self, calls: Calls) -> None:
        """J20: of a commit that is refused nothing is there, whatever it held."""
        calls.park(step(1), state=b"1", wake_at=None)
        turn = calls.take()
        calls.release(turn)
        before = calls.look(), calls.entries(), calls.unsent()

        refused = calls.try_commit(
            turn,
            step(2),
            status=Status.COMPLETED,
            answers=[(1, done())],
            output=b"2",
            state=b"2",
            wake_at=time.time(),
        )
        assert refused is Refusal.SUPERSEDED
        assert (calls.look(), calls.entries(), calls.unsent()) == before

    def test_own_commands_are_not_unread(self, calls: Calls) -> None:
        """J21: after a commit without news, `seen` is the last place: nothing wants a turn."""
        calls.park(step(1), mark(2))

        record = calls.look()
        assert record.seen == record.head == 2
        assert calls.due() == {}
