"""Cases of limits: refused in words, and nothing of it half recorded."""

from __future__ import annotations

import json
import logging

import pytest

from dispatchers._journal.limits import MAX_ENTRIES, MAX_ENTRY, MAX_JOURNAL, MAX_OPEN
from dispatchers.journals import Command, EntryKind, LimitError, Refusal, Status

from ._calls import Calls, done, local, mark, step


class Limits:
    """J56 to J60."""

    def test_the_largest_entry_fits(self, calls: Calls) -> None:
        """J56: all bytes of it come back; one more and the step fails with `too_large`."""
        body = bytes(range(256)) * (MAX_ENTRY // 256)
        calls.park(step(1), step(2), local(3))

        calls.answer(1, body)
        assert calls.answer(2, body + b"x").first
        calls.commit(calls.take(), answers=[(3, done(body + b"x"))])
        whole, *failed = calls.entries(after=3)
        assert whole.body == body
        for entry in failed:
            assert entry.kind is EntryKind.FAILED, "an answer that is too large was recorded"
            said = json.loads(entry.body or b"")
            assert said["category"] == "too_large"
            assert str(MAX_ENTRY) in said["message"]

    def test_a_signal_that_is_too_large_is_refused(self, calls: Calls) -> None:
        """J57: its sender is told; nothing is recorded, not even for one that has not begun."""
        calls.park()
        for execution in ("shop.checkout/1", "shop.checkout/2"):
            with pytest.raises(LimitError, match=str(MAX_ENTRY)):
                calls.deliver("a", b"x" * (MAX_ENTRY + 1), execution=execution)
        assert calls.entries() == []
        assert calls.find() == ["shop.checkout/1"]
        assert calls.deliver("a").first, "the source of a refused signal counts as seen"

    def test_a_command_beyond_makes_it_stuck(self, calls: Calls) -> None:
        """J58: nothing of its commit is recorded, and the sentence says which and the cure."""
        calls.park(step(1), wake_at=None)
        large = Command(2, EntryKind.STEP, "shop.big", b"d", b"x" * (MAX_ENTRY + 1), "default")

        assert calls.try_commit(calls.take(), mark(3), large) is Refusal.LIMIT
        record = calls.look()
        assert record.status is Status.STUCK
        assert "shop.big" in (record.why or ""), "the sentence does not name the command"
        assert calls.kinds() == [("STEP", 1)]
        assert sorted(calls.unsent()) == [1]
        assert calls.answer(1).first, "steps that are under way can still be answered"
        calls.commit(calls.take(), seen=2)
        assert calls.look().status is Status.RUNNING

    def test_open_commands_are_counted(self, calls: Calls) -> None:
        """J59: up to the limit, and again once some are answered."""
        calls.park(*[step(number) for number in range(1, MAX_OPEN + 1)])
        assert calls.try_commit(calls.take(), step(MAX_OPEN + 1)) is Refusal.LIMIT
        assert "open" in (calls.look().why or "")

        calls.answer(1)
        calls.commit(calls.take(), step(MAX_OPEN + 1))

    def test_a_full_journal_says_so(self, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
        """J60: half-way one warning; beyond, the execution is stuck and `restart` is the cure."""
        caplog.set_level(logging.WARNING, logger="dispatchers")
        calls.begin()
        turn = calls.take(wakeup="a")
        numbers = iter(range(1, 2 * MAX_ENTRIES))
        for _ in range(MAX_ENTRIES // 1000):
            calls.commit(turn, *[mark(next(numbers)) for _ in range(1000)], keep=True)
        assert calls.look().head == MAX_ENTRIES

        warnings = [r for r in caplog.records if str(MAX_ENTRIES) in r.getMessage()]
        assert len(warnings) == 1, "half-way is one warning"
        assert calls.try_commit(turn, mark(next(numbers))) is Refusal.LIMIT
        record = calls.look()
        assert record.status is Status.STUCK
        assert "restart" in (record.why or "")
        with pytest.raises(LimitError, match=str(MAX_ENTRIES)):
            calls.deliver("a")
        assert calls.deliver("b", None, kind=EntryKind.CANCEL).first, "it cannot be cancelled"
        calls.commit(calls.take(), restart=b"again")
        assert calls.deliver("a").first, "a restart makes no room"

    def test_bytes_are_counted(self, calls: Calls) -> None:
        """J61: an answer for which the journal has no room becomes a failure `too_large`."""
        count = MAX_JOURNAL // MAX_ENTRY
        calls.park(*[step(number)._replace(body=b"") for number in range(1, count + 2)])
        for number in range(1, count + 1):
            calls.answer(number, b"x" * MAX_ENTRY)

        calls.answer(count + 1, b"x" * MAX_ENTRY)
        kinds = [entry.kind for entry in calls.entries(after=count + 1)]
        assert kinds == [EntryKind.DONE] * count + [EntryKind.FAILED]
        assert calls.try_commit(calls.take(), step(count + 2)) is Refusal.LIMIT
