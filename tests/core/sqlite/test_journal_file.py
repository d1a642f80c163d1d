"""What only a file can show of a journal: whose it is, what is wrong with it, what reads it."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dispatchers.journals import (
    LEASE,
    LONGEST_WAIT,
    Answer,
    Command,
    Commit,
    Committed,
    EntryKind,
    JournalError,
    Record,
    Refusal,
    Start,
    Turn,
    rules,
)
from dispatchers.sqlite import NewJob, SQLiteIdempotencyStore, SQLiteJournal, SQLiteStore
from dispatchers.sqlite import _schema as schema
from dispatchers.sqlite._journal_reads import _IS_LOST, DUE
from dispatchers.sqlite._schema import STEPS, prepare

T = 5.0
ID = "shop.checkout/7"

RELEASED = 4
"""Steps of the layout that 0.1.0 knew."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SQLiteJournal]:
    journal = SQLiteJournal(path)
    yield journal
    journal.close()


def start(execution: str = ID) -> Start:
    return Start(execution, "shop.checkout", 1, "default", None, b"{}", b"{}", time.time())


def begun(journal: SQLiteJournal, execution: str = ID) -> Turn:
    journal.begin(start(execution), timeout=T)
    turn = journal.take(execution, "o", wakeup="w", after=0, timeout=T)
    assert isinstance(turn, Turn)
    return turn


def released_file(path: Path) -> None:
    """Make a file as 0.1.0 did, with work that waits and a claim."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        prepare(old, str(path), STEPS[:RELEASED])
        old.execute("PRAGMA journal_mode = WAL")
        old.execute(
            "INSERT INTO jobs (id, task, queue, state, priority, run_at, attempt, token,"
            " created_at, body) VALUES ('a', 't', 'default', 0, 0, 1, 1, 1, 1, x'7b7d')"
        )
        old.execute("INSERT INTO claims VALUES ('t k', 'me', 0, 60.0, 1e12)")
        assert old.execute("PRAGMA user_version").fetchone() == (RELEASED,)


def test_a_file_of_the_released_version_becomes_a_journal(path: Path) -> None:
    """A queue of 0.1.0 with jobs waiting keeps them, and holds executions as well."""
    released_file(path)

    journal = SQLiteJournal(path)
    turn = begun(journal)

    assert turn.record.id == ID
    assert SQLiteStore(path).counts().ready == 1
    assert SQLiteIdempotencyStore(path).claim("t k", "other", 60).state == "done"
    journal.close()


def test_a_released_queue_is_upgraded_while_it_is_used(path: Path) -> None:
    """A store that has the old file open goes on: the steps only add."""
    released_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        assert old.execute("SELECT count(*) FROM jobs").fetchone() == (1,)

        journal = SQLiteJournal(path)
        begun(journal)
        journal.close()

        old.execute("UPDATE jobs SET priority = 5 WHERE id = 'a'")
        assert old.execute("SELECT priority FROM jobs").fetchone() == (5,)


def test_the_released_program_says_to_upgrade(path: Path, monkeypatch: Any) -> None:
    """C11: a program of 0.1.0 that opens the new file names the versions and the cure."""
    journal = SQLiteJournal(path)
    begun(journal)
    journal.close()

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(Exception, match=r"version 5 .* up to 4: upgrade dispatchers here too"):
            prepare(connection, str(path), STEPS[:RELEASED])


def test_a_newer_layout_is_refused(path: Path, journal: SQLiteJournal) -> None:
    """C11: a layout of the future is not guessed at."""
    begun(journal)
    journal.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(JournalError, match=r"version 99.*upgrade dispatchers") as caught:
        SQLiteJournal(path).look(ID, timeout=T)

    assert not caught.value.maybe_written


def test_a_foreign_file_is_refused_and_left_alone(path: Path, journal: SQLiteJournal) -> None:
    """A database of another program is not written to."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE books (x)")
        other.commit()
    before = path.read_bytes()

    with pytest.raises(JournalError, match="another program's database: choose another path"):
        journal.begin(start(), timeout=T)

    assert path.read_bytes() == before


@pytest.mark.parametrize("back", [False, True], ids=["gone", "put back"])
def test_a_file_that_is_deleted_in_the_midst_is_missed(
    path: Path, journal: SQLiteJournal, *, back: bool
) -> None:
    """An empty file in its place is not taken for it: all executions would seem never to be."""
    turn = begun(journal)
    saved = path.with_name("saved.db")
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(saved)) as copy:
        connection.backup(copy)
    for each in path.parent.glob("work.db*"):
        each.unlink()

    with pytest.raises(JournalError, match="deleted or replaced while it was in use: put it back"):
        journal.commit(turn, Commit(time.time(), 0), timeout=T)
    with pytest.raises(JournalError, match="deleted or replaced"):
        journal.look(ID, timeout=T)

    if back:
        for each in path.parent.glob("work.db*"):
            each.unlink()
        saved.rename(path)
        assert isinstance(journal.commit(turn, Commit(time.time(), 0), timeout=T), Committed)


def test_a_closed_journal_says_so(journal: SQLiteJournal) -> None:
    """A call after `close` names the cure."""
    begun(journal)
    journal.close()

    with pytest.raises(JournalError, match="is closed: build another one"):
        journal.look(ID, timeout=T)


def test_a_file_held_by_another_is_waited_for(path: Path, journal: SQLiteJournal) -> None:
    """C2: a call ends at its timeout, and has changed nothing then."""
    turn = begun(journal)

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="held by others") as caught:
            journal.commit(turn, Commit(time.time(), 0), timeout=0.1)
        assert journal.look(ID, timeout=0.1) is not None
        other.execute("ROLLBACK")

    assert not caught.value.maybe_written
    assert isinstance(journal.commit(turn, Commit(time.time(), 0), timeout=T), Committed)


def test_a_file_that_cannot_be_written_says_so(path: Path, journal: SQLiteJournal) -> None:
    """A read-only database is told, with the cure."""
    turn = begun(journal)
    connection = journal.database._slot.connection
    assert connection is not None
    connection.execute("PRAGMA query_only = 1")

    with pytest.raises(JournalError, match="cannot be written: let this process write") as caught:
        journal.commit(turn, Commit(time.time(), 0), timeout=T)

    assert not caught.value.maybe_written


def test_a_full_disk_leaves_the_execution_as_it_was(journal: SQLiteJournal) -> None:
    """What does not fit is refused as a whole, and goes through once there is room."""
    turn = begun(journal)
    connection = journal.database._slot.connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = Command(1, EntryKind.STEP, "shop.charge", b"d", bytes(500_000), "default")

    with pytest.raises(JournalError, match="cannot grow: free space on its disk") as caught:
        journal.commit(turn, Commit(time.time(), 0, [large]), timeout=T)

    assert not caught.value.maybe_written
    assert journal.entries(ID, timeout=T) == []
    # The connection is a new one: the limit went with the old.
    assert isinstance(journal.commit(turn, Commit(time.time(), 0, [large]), timeout=T), Committed)


@pytest.mark.parametrize("why", DUE)
def test_the_sweep_reads_only_indexes(journal: SQLiteJournal, why: str) -> None:
    """Ten thousand parked executions cost the sweep nothing: none of their rows is read."""
    begun(journal)
    connection = journal.database._slot.connection
    assert connection is not None
    values = {"now": 0.0, "long_lost": 0.0, "lost": 0.0, "limit": 10}

    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {DUE[why]}", values)]

    assert not [line for line in plan if line.startswith("SCAN") and "USING" not in line], plan


def test_commits_are_one_transaction_each(journal: SQLiteJournal) -> None:
    """A local step, its command and its answer, is one commit; a sweep without work is none."""
    turn = begun(journal)
    journal.due(limit=10, timeout=T)  # which notes that the turn is held
    connection = journal.database._slot.connection
    assert connection is not None
    told: list[str] = []
    connection.set_trace_callback(told.append)
    local = Command(1, EntryKind.LOCAL, "rate", b"d")
    answer = Answer(EntryKind.DONE, b"1", time.time())

    journal.commit(turn, Commit(time.time(), 0, [local], [(1, answer)]), timeout=T)
    local_step = told.count("COMMIT")
    journal.due(limit=10, timeout=T)
    journal.is_answered(ID, 1, timeout=T)

    assert local_step == 1
    assert told.count("COMMIT") == 1
    assert told.count("BEGIN IMMEDIATE") == 1


def test_a_local_step_writes_two_pages(path: Path, journal: SQLiteJournal) -> None:
    """Its entries and the execution: a turn that goes on as before touches no index."""
    turn = begun(journal)
    log = path.with_name(path.name + "-wal")
    page = 4096 + 24
    sizes = []

    for number in (1, 2):
        local = Command(number, EntryKind.LOCAL, "rate", b"d")
        answer = Answer(EntryKind.DONE, b"1", time.time())
        seen = 2 * (number - 1)
        journal.commit(turn, Commit(time.time(), seen, [local], [(number, answer)]), timeout=T)
        sizes.append(log.stat().st_size)

    assert sizes[1] - sizes[0] == 2 * page


def test_a_turn_that_was_given_up_may_be_taken_by_any_process(
    path: Path, in_child: Callable[[Callable[[], object]], int]
) -> None:
    """The sweep that sees a lease run out takes it away: the next process need not wait again."""
    journal = SQLiteJournal(path, lease=0.2, unread_after=0.1)
    begun(journal)
    journal.due(limit=10, timeout=T)
    end = time.monotonic() + 10
    while not (found := journal.due(limit=10, timeout=T)):
        assert time.monotonic() < end
        time.sleep(0.05)

    def take() -> None:
        other = SQLiteJournal(path, lease=60.0)
        assert isinstance(other.take(ID, "x", wakeup="x", after=0, timeout=T), Turn)

    assert [wake.why for wake in found] == ["orphaned"]
    assert in_child(take) == 0
    journal.close()


def test_processes_of_one_look_find_a_turn_that_was_given_up(
    path: Path, journal: SQLiteJournal
) -> None:
    """D18: `executions sweep` begins anew each time, and so may whoever answers a push."""
    begun(journal)
    now, found = [100.0], []

    for _ in range(3):
        fresh = SQLiteJournal(path)
        fresh._clock = lambda: now[0]
        found.append([each.why for each in fresh.due(limit=10, timeout=T)])
        fresh.close()
        now[0] += LEASE / 2

    assert found == [[], [], ["orphaned"]]


@pytest.mark.parametrize("timer", [None, 1000])
def test_what_is_woken_in_vain_is_woken_less_and_less_often(
    path: Path, monkeypatch: pytest.MonkeyPatch, timer: int | None
) -> None:
    """D18: behind a queue that takes minutes, wake-ups would be all that is in it."""
    journal = SQLiteJournal(path, unread_after=1.75)
    began, now = time.time(), [0.0]
    monkeypatch.setattr("dispatchers._runtime.clock.time", lambda: began + now[0])
    journal.begin(start()._replace(at=began), timeout=T)
    if timer:
        turn = journal.take(ID, "o", wakeup="w", after=0, timeout=T)
        assert isinstance(turn, Turn)
        journal.commit(turn, Commit(began, 0, wake_at=began + timer), timeout=T)
    found = []

    for second in range(timer or 0, (timer or 0) + 300):
        now[0] = second + 0.5
        found += [second - (timer or 0) for _ in journal.due(limit=10, timeout=T)]

    journal.close()
    first = [] if timer is None else [0]
    assert found == [*first, 2, 5, 11, 23, 47, 95, 155, 215, 275]


def test_the_statement_says_when_as_the_rule_of_all_journals_does() -> None:
    """D18: `rules.pause_after`, as a condition that finds rows by an index."""
    times = (0.0, 0.5, 1.0, 2.0, 30.0, 59.0, 200.0)
    with closing(sqlite3.connect(":memory:")) as connection:
        for woken_at, since, timer, pause in itertools.product(times, times, (None, *times), times):
            updated, now = woken_at - since, woken_at + pause
            record = _record(updated_at=updated, wake_at=timer)
            values = {"now": now, "woken_at": woken_at, "updated_at": updated, "wake_at": timer}
            values |= {"lost": now - 1.0, "long_lost": now - LONGEST_WAIT}

            (found,) = connection.execute(_AS_ROW, values).fetchone()

            wanted = pause >= rules.pause_after(rules.waited(record, woken_at), 1.0)
            assert bool(found) is wanted, values


_AS_ROW = f"""
SELECT {_IS_LOST} FROM
    (SELECT :woken_at AS woken_at, :updated_at AS updated_at, :wake_at AS wake_at)
"""


def _record(**fields: Any) -> Record:
    given = dict.fromkeys(Record._fields)
    return Record(**{**given, **fields})


def test_only_turns_that_are_held_are_watched(journal: SQLiteJournal) -> None:
    """D18: nothing is left in the file of those that have ended."""
    turn = begun(journal)
    journal.due(limit=10, timeout=T)
    journal.commit(turn, Commit(time.time(), 0), timeout=T)
    begun(journal, "shop.checkout/8")
    journal.due(limit=10, timeout=T)

    with journal.database.transaction(timeout=T) as connection:
        watched = connection.execute("SELECT key FROM watched").fetchall()
    assert watched == [("/shop.checkout/8",)]


def test_queue_and_journal_share_a_file(path: Path, journal: SQLiteJournal) -> None:
    """Jobs and executions are in one file, each with its own connection."""
    store = SQLiteStore(path)
    store.put(NewJob("a", "t", "q", b"{}"), timeout=T)
    begun(journal)

    assert store.counts().ready == 1
    assert journal.take(ID, "x", wakeup="x", after=0, timeout=T) is Refusal.HELD
    store.close()


def test_threads_share_a_journal(journal: SQLiteJournal) -> None:
    """Answers of many threads are recorded without a gap, each once."""
    turn = begun(journal)
    steps = [Command(n, EntryKind.STEP, "t", b"d", b"{}", "default") for n in range(1, 81)]
    journal.commit(turn, Commit(time.time(), 0, steps), timeout=T)
    firsts: list[bool] = []

    def answer() -> None:
        for number in range(1, 81):
            given = Answer(EntryKind.DONE, b"1", time.time())
            firsts.append(journal.answer(ID, number, given, timeout=30.0).first)

    threads = [threading.Thread(target=answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(firsts) == 80
    entries = journal.entries(ID, timeout=T)
    assert [each.seq for each in entries] == list(range(1, 161))


def test_the_layout_of_the_release_is_not_changed() -> None:
    """Files of 0.1.0 are read by the steps that made them: those are history."""
    assert len(schema.STEPS) == RELEASED + 1
