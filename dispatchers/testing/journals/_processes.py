"""Cases of processes, forks, kills, clocks and closing."""

from __future__ import annotations

import functools
import os
import random
import time
from pathlib import Path

import pytest

from dispatchers.journals import Entry, EntryKind, JournalError, Status, Turn
from dispatchers.testing._others import in_fork, results

from . import _workers
from ._calls import ONE, PATIENCE, Calls, at_once, gapless, in_short, step, timer, until
from ._harness import JournalHarness

WRITTEN = [("STEP", 1), ("CHILD", 2), ("LOCAL", 3), ("SEND", 4), ("DONE", 3)]
LATER = [("DONE", 1), ("SIGNAL", None)]
RESUMED = [each for each in WRITTEN if each != ("CHILD", 2)] + LATER


class Processes:
    """J62 to J71."""

    def test_processes_begin_once(self, harness: JournalHarness, calls: Calls) -> None:
        """J62: of two processes that begin the same execution, exactly one is first."""
        harness.need("processes")
        with _workers.others(harness.opener, _workers.begin_many, 2) as started:
            found = results(started)

        for number, firsts in enumerate(zip(*found, strict=True)):
            assert sum(firsts) == 1, f"execution {number} began {sum(firsts)} times"
            index = firsts.index(True)
            assert calls.look(f"shop.checkout/{number}").input == b"%d" % index

    def test_processes_answer_once(self, harness: JournalHarness, calls: Calls) -> None:
        """J63: of two processes that answer the same command, exactly one is first."""
        harness.need("processes")
        calls.park(*[step(number) for number in range(1, 51)])
        with _workers.others(harness.opener, _workers.answer_many, 2) as started:
            found = results(started)

        answers = {entry.number: entry.body for entry in calls.entries(after=50)}
        for number, firsts in enumerate(zip(*found, strict=True), 1):
            assert sum(firsts) == 1, f"command {number} was answered {sum(firsts)} times"
            assert answers[number] == b"%d" % firsts.index(True)
        gapless(calls.entries())

    def test_processes_leave_no_gap(self, harness: JournalHarness, calls: Calls) -> None:
        """J64: signals of four processes and of this one have places 1, 2, 3 ..."""
        harness.need("processes")
        calls.park()
        with _workers.others(harness.opener, _workers.signal_many, 4) as started:
            for each in started:
                each.begin()
            at_once(2, lambda index: _workers.signal_many(calls, 10 + index))
            assert [each.hear() for each in started] == [25] * 4

        gapless(calls.entries())
        assert len(calls.entries()) == 150, "signals were lost"

    def test_processes_take_one_turn(self, harness: JournalHarness, calls: Calls) -> None:
        """J65: a turn, and a claim of a step, have one owner among all processes."""
        harness.need("processes")
        calls.begin()

        with _workers.others(harness.opener, _workers.take_one, 3) as started:
            taken = results(started)
        found, first, last = zip(*taken, strict=True)
        if max(last) - min(first) < harness.lease:  # else a second may be given, rightly
            assert sorted(found) == ["held", "held", "turn"]
        with _workers.others(harness.opener, _workers.claim_one, 2) as started:
            claims = results(started)
        assert sorted(claims) == ["busy", "claimed"]

    @pytest.mark.parametrize("call", _workers.CALLS)
    def test_a_process_killed_in_a_call(
        self, harness: JournalHarness, calls: Calls, call: str, tmp_path: Path
    ) -> None:
        """J66: whole or not at all; what returned before is there, and others go on with it."""
        harness.need("processes")
        said = tmp_path / "said"
        act = functools.partial(_workers.live_loudly, path=str(said))
        with _workers.others(harness.opener, act, 1) as [other]:
            other.begin()
            until(lambda: said.exists() and f"{call} " in said.read_text(), f"no {call} came")
            # Into the call, or shortly after: each run at another moment.
            time.sleep(random.random() * 0.01)  # noqa: S311 - no secret
            other.end()

        *before, last = [line.split() for line in said.read_text().splitlines()]
        for name in {name for _, name in before} - {last[1]}:
            _is_as_after("terminate", calls, name)
        _is_as_within(last[0], calls, last[1])

    def test_a_forked_child_can_use_it(self, harness: JournalHarness, calls: Calls) -> None:
        """J67: forked while other threads are in the journal, both sides go on."""
        harness.need("fork")
        calls.park()

        def write(index: int) -> int:
            if index:
                return sum(calls.deliver(f"{index}-{number}").first for number in range(30))
            return max(_forked(calls) for _ in range(3))

        assert at_once(4, write) == [0, 30, 30, 30]
        gapless(calls.entries())

    def test_a_clock_that_is_set_costs_no_turn(self, harness: JournalHarness, calls: Calls) -> None:
        """J68: an hour forward or back, what is renewed stays held, and only that.

        Entries that no turn reads are found all the same.
        """
        harness.need("clock")
        for number, hours in enumerate((1, -1)):
            held, lost, unread = (f"shop.{name}/{number}" for name in ("held", "lost", "unread"))
            calls.begin(held)
            turn = calls.take(held)
            calls.begin(lost)
            calls.take(lost)
            calls.park(execution=unread)
            calls.deliver("a", execution=unread)
            with harness.stepped(3600 * hours):
                assert calls.keeps_others_out(turn), f"the clock was set by {hours} h: not held"
                until(
                    lambda lost=lost: isinstance(calls.try_take(lost), Turn),  # type: ignore[misc]
                    f"the clock was set by {hours} h: a lost turn is never given up",
                )
                until(
                    lambda unread=unread: unread in calls.due(),  # type: ignore[misc]
                    f"the clock was set by {hours} h: unread entries are not found",
                )

    def test_timers_follow_the_clock(self, harness: JournalHarness, calls: Calls) -> None:
        """J69: an instant of the calendar is reached when the clock says so."""
        harness.need("clock")
        later = time.time() + 1800
        calls.park(timer(1, later), wake_at=later)
        assert calls.due() == {}

        with harness.stepped(3600):
            assert calls.due() == {ONE: "timer"}
            assert in_short(calls.take().entries) == [("TIMER", 1), ("FIRED", 1)]

    def test_a_closed_journal(self, harness: JournalHarness, calls: Calls) -> None:
        """J70: closing twice is no error; afterwards it opens again, or says that it is closed."""
        calls.begin()
        closed = Calls(harness.journal())
        closed.look()
        closed.journal.close()
        closed.journal.close()

        for use in (closed.look, closed.take, lambda: closed.deliver("a")):
            try:
                use()
            except JournalError as exc:
                maybe = exc.maybe_written
            else:
                maybe = False
            assert not maybe, "it is closed: nothing was written"
        assert calls.look().status is Status.RUNNING, "closing one journal closed another"

    def test_claims_of_steps(self, calls: Calls) -> None:
        """J71: one run at a time; released it is free, another key does not matter."""
        claims = calls.journal.claims

        assert claims.claim("a/1", "one", 60).state == "claimed"
        assert claims.claim("a/1", "two", 60).state == "busy"
        assert claims.claim("a/2", "two", 60).state == "claimed"
        assert claims.renew("a/1", "one", 60)
        assert not claims.renew("a/1", "two", 60)
        assert claims.release("a/1", "one")
        assert claims.claim("a/1", "two", 60).state == "claimed"


def _forked(calls: Calls) -> int:
    """Use the journal in a forked child; returns 0 if it could."""
    return in_fork(lambda: 0 if calls.begin(f"shop.checkout/{os.getpid()}").first else 1)


def _is_as_within(call: str, calls: Calls, name: str) -> None:
    """Check that an execution is as before or as after a call, and that it can go on."""
    before = _workers.CALLS[: _workers.CALLS.index(call)]
    was = _fits(before[-1], calls, name) if before else None
    now = _fits(call, calls, name)
    assert was is None or now is None, f"after a kill in {call}: neither {was} nor {now}"


def _is_as_after(call: str, calls: Calls, name: str) -> None:
    assert (wrong := _fits(call, calls, name)) is None, wrong


def _fits(call: str, calls: Calls, name: str) -> str | None:
    """Return what is not as it is after a call; None if all is."""
    record = calls.journal.look(name, timeout=PATIENCE)
    if record is None:
        return "nothing is there" if call != "none" else None
    entries = calls.entries(name)
    gapless(entries)
    found = (in_short(entries), record.status, record.state, sorted(calls.unsent(name)))
    return None if found == STATES[call] and _is_whole(entries) else f"{call}: {found}"


def _is_whole(entries: list[Entry]) -> bool:
    return all(entry.body for entry in entries if entry.kind is not EntryKind.LOCAL)


STATES = {
    "begin": ([], Status.RUNNING, None, []),
    "take": ([], Status.RUNNING, None, []),
    "commit": (WRITTEN, Status.RUNNING, b"one", [1, 2, 4]),
    "sent": (WRITTEN, Status.RUNNING, b"one", [4]),
    "answer": (WRITTEN + LATER[:1], Status.RUNNING, b"one", [4]),
    "deliver": (WRITTEN + LATER, Status.RUNNING, b"one", [4]),
    "end": (WRITTEN + LATER, Status.FAILED, b"one", [4]),
    "resume": (RESUMED, Status.RUNNING, b"one", [4]),
    "terminate": (RESUMED, Status.TERMINATED, b"one", [4]),
}
"""Entries, status, state and unsent commands after each call of `live`."""
