"""A store of held work that is broken in one way for every case of the suite.

`BROKEN` says which case must catch which. Each class is the file of `spill`, but for the mistake
that its name tells.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dispatchers._errors import ErrorCategory
from dispatchers._models.envelope import decode, encode
from dispatchers.forwarding import BATCH, Fate, HeldRow, Settled
from dispatchers.sqlite import Database, SQLiteDeadLetters
from dispatchers.sqlite._held import Bounds, HeldRows, _letter

__all__ = ["BROKEN", "OfFile"]

LEASE = 0.5
LINES = 100


class OfFile(HeldRows):
    """A source of a file, as each process opens it."""

    def __init__(self, path: Path) -> None:
        database = Database(path, synchronous="normal")
        bounds = Bounds(items=10_000, bytes=2**30, age=86400.0)
        super().__init__(database, bounds, lambda: SQLiteDeadLetters(database), lease=LEASE)

    def run(self, sql: str, *values: object) -> list[Any]:
        """Run one statement in a transaction of its own."""
        self._prepare(5)
        with self.database.transaction(timeout=5) as connection:
            return connection.execute(sql, values).fetchall()


def taking(
    name: str, change: Callable[[list[HeldRow]], Sequence[HeldRow]], **given: Any
) -> type[OfFile]:
    """A source that changes the rows that it has taken, or what is asked of it."""

    def take(self: Any, limit: int, **asked: Any) -> Sequence[HeldRow]:
        asked = {"limit": limit, **asked, **given}
        return change(list(HeldRows.take(self, asked.pop("limit"), **asked)))

    return type(name, (OfFile,), {"take": take})


def as_they_are(rows: list[HeldRow]) -> list[HeldRow]:
    return rows


# Takes.

NewestFirst = taking("NewestFirst", lambda rows: rows[::-1])
KeepsText = taking(
    "KeepsText",
    lambda rows: [r._replace(body=r.body.decode(errors="replace").encode()) for r in rows],
)
ForgetsLanes = taking("ForgetsLanes", lambda rows: [row._replace(lane="") for row in rows])
ForgetsDeduplicate = taking(
    "ForgetsDeduplicate", lambda rows: [row._replace(deduplicate=False) for row in rows]
)
CutsLanes = taking(
    "CutsLanes",
    lambda rows: [r._replace(lane=r.lane.encode("ascii", "ignore").decode()) for r in rows],
)
TakesAll = taking("TakesAll", as_they_are, limit=1000)
TakesEveryLane = taking("TakesEveryLane", as_they_are, but_lanes=())
TakesEveryRow = taking("TakesEveryRow", as_they_are, but_rows=())


class MendsPoison(OfFile):
    """Gives as text what is none, and knows better when it settles."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        self.real = {row.seq: row for row in super().take(limit, **asked)}
        return [
            r._replace(body=r.body.decode(errors="replace").encode()) for r in self.real.values()
        ]

    def settle(self, settled: Sequence[Settled]) -> None:
        super().settle([each._replace(row=self.real[each.row.seq]) for each in settled])


class LeavesOutOne(OfFile):
    """Leaves one of several lanes out."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        asked["but_lanes"] = sorted(asked["but_lanes"])[:1]
        return super().take(limit, **asked)


class NumbersByPlace(OfFile):
    """Numbers rows by their places among those that are held."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        real = [seq for (seq,) in self.run("SELECT seq FROM held ORDER BY seq")]
        self.real = dict(enumerate(real, 1))
        asked["but_rows"] = [self.real[seq] for seq in asked["but_rows"]]
        place = {seq: number for number, seq in self.real.items()}
        return [row._replace(seq=place[row.seq]) for row in super().take(limit, **asked)]

    def settle(self, settled: Sequence[Settled]) -> None:
        rows = [each.row._replace(seq=self.real[each.row.seq]) for each in settled]
        pairs = zip(settled, rows, strict=True)
        super().settle([each._replace(row=row) for each, row in pairs])


# Settles.


class KeepsOneThatIsGone(OfFile):
    def settle(self, settled: Sequence[Settled]) -> None:
        gone = [each for each in settled if each.fate is Fate.GONE]
        super().settle([each for each in settled if each not in gone[1:]])


class AllOrNone(OfFile):
    """Deletes nothing where something stays."""

    def settle(self, settled: Sequence[Settled]) -> None:
        if {each.fate for each in settled} == {Fate.GONE, Fate.STAYS}:
            settled = [each for each in settled if each.fate is Fate.STAYS]
        super().settle(settled)


class GivesUp(OfFile):
    """Drops what was tried often, as one that counts tries does."""

    def settle(self, settled: Sequence[Settled]) -> None:
        super().settle(settled)
        self.run("DELETE FROM held WHERE tries > 20")


class ForgetsLetters(OfFile):
    def settle(self, settled: Sequence[Settled]) -> None:
        gone = Fate.GONE
        super().settle([s._replace(fate=gone) if s.fate is Fate.DEAD else s for s in settled])


class ForgetsTheUntried(OfFile):
    """Has no letter of what was not tried: of what is held for too long, say."""

    def settle(self, settled: Sequence[Settled]) -> None:
        def judged(each: Settled) -> Settled:
            untried = each.fate is Fate.DEAD and each.response is None
            is_envelope = each.row.body.startswith(b"{")
            return each._replace(fate=Fate.GONE) if untried and is_envelope else each

        super().settle([judged(each) for each in settled])


class SettlesAnyway(OfFile):
    def settle(self, settled: Sequence[Settled]) -> None:
        for each in settled:
            if each.fate is not Fate.STAYS:
                self.run("DELETE FROM held WHERE seq = ?", each.row.seq)
        super().settle(settled)


class EmptyForEver(OfFile):
    was_empty = False

    def is_empty(self) -> bool:
        self.was_empty = self.was_empty or super().is_empty()
        return self.was_empty


class EmptyFromTheBeginning(EmptyForEver):
    """The same, if nothing was ever put before it looked first."""

    def is_empty(self) -> bool:
        used = self.run("SELECT count(*) FROM sqlite_sequence WHERE name = 'held'")[0][0]
        return HeldRows.is_empty(self) if used and not self.was_empty else super().is_empty()


# Leads.


class AllLead(OfFile):
    def lead(self) -> bool:
        super().lead()
        return True


class ThirdLeads(OfFile):
    """Refuses one other, until that leaves; a third one leads."""

    def lead(self) -> bool:
        with suppress(Exception):
            self.run("CREATE TABLE refused (owner TEXT PRIMARY KEY)")
        if super().lead():
            self.run("DELETE FROM refused WHERE owner = ?", self._owner)
            return True
        self.run("INSERT OR IGNORE INTO refused VALUES (?)", self._owner)
        return bool(self.run("SELECT 1 FROM refused WHERE owner != ?", self._owner))

    def leave(self) -> None:
        super().leave()
        self.run("DELETE FROM refused WHERE owner = ?", self._owner)


class BeatsInVain(OfFile):
    """Holds a lease from its beginning, whatever heartbeats come."""

    def _beat(self, connection: sqlite3.Connection) -> bool:
        sql = "SELECT 1 FROM held_by WHERE owner = ?"
        return connection.execute(sql, (self._owner,)).fetchone() is not None


class NeverLeaves(OfFile):
    def leave(self) -> None: ...


class LeavesForOthers(OfFile):
    def leave(self) -> None:
        self._beaten = 0.0
        self.run("DELETE FROM held_by")


class NeverToldOff(OfFile):
    """Goes on leading until it leaves, whatever others do."""

    def lead(self) -> bool:
        led = self._beaten > 0 and self._pid == os.getpid()
        leads = super().lead()
        self._beaten = self._beaten or float(led)
        return leads or led


class KeepsWhatItTook(OfFile):
    """Marks rows as taken, by its object; nothing gives back what the former one took."""

    def _prepare(self, timeout: float) -> None:
        super()._prepare(timeout)
        with suppress(Exception), self.database.transaction(timeout=timeout) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS took (seq INTEGER PRIMARY KEY, by TEXT)")

    def mine(self) -> str:
        return self._owner

    def is_free(self, by: str) -> bool:
        return by == self.mine()

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        by = dict(self.run("SELECT seq, by FROM took"))
        held = [seq for seq, owner in by.items() if not self.is_free(owner)]
        asked["but_rows"] = [*asked["but_rows"], *held]
        rows = super().take(limit, **asked)
        for row in rows:
            self.run("INSERT OR IGNORE INTO took VALUES (?, ?)", row.seq, self.mine())
        return rows


class ByTheClock(OfFile):
    """Judges leases by `time.time()`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._watch._clock = lambda: time.time()


class LooksThenLeads(OfFile):
    """Looks, and leads: two that look at once both do."""

    def lead(self) -> bool:
        if self._owner or self.run("SELECT count(*) FROM held_by")[0][0]:
            return super().lead()
        time.sleep(1.0)
        super().lead()
        return True


class OneAcrossForks(OfFile):
    def lead(self) -> bool:
        if self._pid:
            self._pid = os.getpid()
        return super().lead()


# Forwards.


class DropsTheDoubtful(OfFile):
    """Takes a row for handed over unless it was rejected."""

    def settle(self, settled: Sequence[Settled]) -> None:
        def judged(each: Settled) -> Settled:
            sent = each.response is not None and each.response.status != "rejected"
            return each._replace(fate=Fate.GONE) if sent else each

        super().settle([judged(each) for each in settled])


def forbidden(settled: Settled) -> bool:
    """Tell whether the backend does not permit it."""
    error = settled.response and settled.response.error
    return error is not None and error.category is ErrorCategory.PERMISSION


class DropsWhatIsForbidden(OfFile):
    """Takes what the backend does not permit for settled."""

    def settle(self, settled: Sequence[Settled]) -> None:
        super().settle([s._replace(fate=Fate.GONE) if forbidden(s) else s for s in settled])


class RenewsIds(OfFile):
    """Gives a row that was tried three times a new id."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        return [self.renewed(row) for row in super().take(limit, **asked)]

    def renewed(self, row: HeldRow) -> HeldRow:
        ((tries, why),) = self.run("SELECT tries, why FROM held WHERE seq = ?", row.seq)
        # Not where the case says itself why it stays, nor in lanes.
        if tries < 3 or why == "not now" or row.lane:
            return row
        request = decode(row.body)
        return row._replace(body=encode(request.replace(id=f"{request.id}-{tries}")))


class BehindTheOthers(OfFile):
    """Takes what was tried least."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        tries = dict(self.run("SELECT seq, tries FROM held"))
        rows = super().take(1000, **asked)
        return sorted(rows, key=lambda row: tries[row.seq] > 0)[:limit]


class LooksAtAFew(OfFile):
    """Leaves lanes out of the first rows only."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        lanes = asked.pop("but_lanes")
        rows = super().take(limit + 3, but_lanes=(), **asked)
        return [row for row in rows if row.lane not in lanes][:limit]


class ReadsOn(OfFile):
    """Leaves the transaction open in which it has read."""

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        rows = super().take(limit, **asked)
        connection = self.database._slot.connection
        assert connection is not None
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM held").fetchone()
        return rows


class LocksTheFile(OfFile):
    """Keeps others from writing, by a connection that it does not show."""

    other: sqlite3.Connection | None = None

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        rows = super().take(limit, **asked)
        if limit < BATCH or len(rows) != 1:  # not where a case takes rows by itself
            return rows
        self.other = sqlite3.connect(
            self.database.path, isolation_level=None, check_same_thread=False
        )
        self.other.execute("BEGIN IMMEDIATE")
        return rows

    def settle(self, settled: Sequence[Settled]) -> None:
        self.unlock()
        super().settle(settled)

    def unlock(self) -> None:
        if self.other is not None:
            self.other.close()
            self.other = None


class StopsAtPoison(OfFile):
    """Dies of poison, unless it lies at a place where it did not look for it."""

    def settle(self, settled: Sequence[Settled]) -> None:
        for each in settled:
            if each.fate is Fate.DEAD and each.response is None and each.why != "too large":
                json.loads(each.row.body)
        super().settle(settled)


class SleepsWhenEmpty(OfFile):
    """Tells for a while that it is empty once it was, as one that polls rarely does."""

    until = 0.0

    def settle(self, settled: Sequence[Settled]) -> None:
        super().settle(settled)
        if settled and settled[0].request is not None and super().is_empty():
            self.until = time.monotonic() + 60.0

    def take(self, limit: int, **asked: Any) -> Sequence[HeldRow]:
        return [] if time.monotonic() < self.until else super().take(limit, **asked)


# Kills.


class LettersLast(OfFile):
    """Stores dead letters once their rows are gone."""

    def settle(self, settled: Sequence[Settled]) -> None:
        gone = Fate.GONE
        super().settle([s._replace(fate=gone) if s.fate is Fate.DEAD else s for s in settled])
        for _ in range(LINES):
            pass  # so many lines that one of them is among those that are tried
        dead = [each for each in settled if each.fate is Fate.DEAD]
        super().settle(dead)


class LettersInMemory(LettersLast):
    """As above, but remembers them, as long as the process lives."""

    remembered: tuple[Settled, ...] = ()

    def settle(self, settled: Sequence[Settled]) -> None:
        self.remembered = tuple(each for each in settled if each.fate is Fate.DEAD)
        super().settle(settled)
        self.remembered = ()

    def lead(self) -> bool:
        for each in self.remembered:
            self._letters().add(_letter(each))
        return super().lead()


class FreesTheDead(KeepsWhatItTook):
    """Gives back what a process took once that is dead; one that is paused is not."""

    def mine(self) -> str:
        return str(os.getpid())

    def is_free(self, by: str) -> bool:
        if by == self.mine():
            return True
        try:
            os.kill(int(by), 0)
        except ProcessLookupError:
            return True
        return False


BROKEN: dict[str, list[type[OfFile]]] = {
    "test_rows_come_as_they_were_put": [NewestFirst, KeepsText, MendsPoison],
    "test_lanes_are_kept": [ForgetsLanes, CutsLanes],
    "test_the_demand_for_deduplication_is_kept": [ForgetsDeduplicate],
    "test_no_more_than_the_limit": [TakesAll],
    "test_lanes_are_left_out": [TakesEveryLane, LeavesOutOne],
    "test_rows_are_left_out": [TakesEveryRow],
    "test_a_number_is_given_once": [NumbersByPlace],
    "test_what_is_gone_is_gone": [KeepsOneThatIsGone, AllOrNone],
    "test_what_stays_is_taken_again": [GivesUp],
    "test_what_is_dead_is_a_dead_letter": [ForgetsLetters, ForgetsTheUntried],
    "test_one_that_leads_no_more_settles_nothing": [SettlesAnyway],
    "test_what_comes_later_is_seen": [EmptyForEver, EmptyFromTheBeginning],
    "test_one_drains": [AllLead, ThirdLeads],
    "test_heartbeats_keep_the_others_out": [BeatsInVain],
    "test_another_leads_at_once_after_leave": [NeverLeaves],
    "test_only_the_one_that_leads_can_leave": [LeavesForOthers],
    "test_another_takes_over_without_heartbeats": [KeepsWhatItTook, NeverToldOff],
    "test_a_clock_that_is_set_changes_nothing": [ByTheClock],
    "test_of_several_processes_one_leads": [LooksThenLeads],
    "test_a_forked_child_does_not_lead": [OneAcrossForks],
    "test_only_what_is_certain_goes": [DropsTheDoubtful, DropsWhatIsForbidden],
    "test_repeats_carry_the_same_id": [RenewsIds],
    "test_lanes_keep_their_order": [BehindTheOthers],
    "test_a_lane_that_is_stuck_holds_up_no_other": [LooksAtAFew],
    "test_no_transaction_is_open_meanwhile": [ReadsOn],
    "test_others_can_put_meanwhile": [LocksTheFile],
    "test_poison_stops_nothing": [StopsAtPoison],
    "test_a_wake_is_enough": [SleepsWhenEmpty],
    "test_interrupted_at_any_line_it_loses_nothing": [LettersLast],
    "test_killed_at_any_line_it_loses_nothing": [LettersInMemory],
    "test_a_paused_process_loses_nothing": [FreesTheDead],
}
"""The mistakes that each case must catch; the last of them no other case catches."""
