"""The journal in a file, over the bare statements that it cannot do without."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import perf_counter, time

from dispatchers.journals import Answer, Command, Commit, Committed, EntryKind, Start, Turn
from dispatchers.sqlite import SQLiteJournal

from ._measure import Figure, interleaved, ratio

TIMEOUT = 30.0
PARKED = """
INSERT INTO executions (id, workflow, version, status, dispatcher, headers, wake_at, started_at,
    created_at, updated_at)
VALUES (?, 'bench.flow', 1, 1, 'd', x'', 1e12, 1, 1, 1)
"""
ENTRY = (
    "INSERT INTO journal (execution, seq, kind, number, body, at) VALUES ('bare', ?, ?, ?, ?, 1)"
)
HEAD = "UPDATE executions SET head = ?, seen = ?, updated_at = 1 WHERE id = 'bare'"


def journal() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work.db"
        found = SQLiteJournal(path)
        local, least = interleaved(_local(found), bare(path), rounds=40, each=50)
        yield ratio("a local step recorded over bare statements, full sync", 1.5, local, least)
        yield from _parked(found)
        yield from _many(found)
        found.close()


def _begun(journal: SQLiteJournal, name: str) -> Turn:
    start = Start(name, "bench.flow", 1, "default", None, b"{}", b"{}", time())
    journal.begin(start, timeout=TIMEOUT)
    turn = journal.take(name, "o", wakeup="w", after=0, timeout=TIMEOUT)
    assert isinstance(turn, Turn)
    return turn


def _local(journal: SQLiteJournal) -> Callable[[], None]:
    numbers = count(1)
    turns: list[Turn] = []
    seen = 0

    def step() -> None:
        nonlocal seen
        number = next(numbers)
        # One execution holds ten thousand entries at most.
        if number % 4000 == 1:
            turns.append(_begun(journal, f"local-{number}"))
            seen = 0
        now = time()
        command = Command(number, EntryKind.LOCAL, "rate", b"12345678")
        answers = [(number, Answer(EntryKind.DONE, b'{"a":1}', now))]
        committed = journal.commit(
            turns[-1], Commit(now, seen, [command], answers), timeout=TIMEOUT
        )
        assert isinstance(committed, Committed)
        seen = committed.entries[-1].seq

    return step


def bare(path: Path) -> Callable[[], None]:
    """Return what writes a local step with the fewest statements, into a file of its own."""
    journal = SQLiteJournal(path)
    _begun(journal, "bare")
    journal.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    numbers = count(1)

    def step() -> None:
        number = next(numbers)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT * FROM executions WHERE id = 'bare'").fetchone()
        connection.execute(ENTRY, (2 * number, 2, number, None))
        connection.execute(ENTRY, (2 * number + 1, 16, number, b'{"a":1}'))
        connection.execute(HEAD, (2 * number + 1, 2 * number + 1))
        connection.execute("COMMIT")

    return step


def _seconds(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def _parked(journal: SQLiteJournal) -> Iterator[Figure]:
    with journal.database.transaction(timeout=TIMEOUT) as connection:
        connection.executemany(PARKED, [(f"parked-{number}",) for number in range(10_000)])
    seconds = min(_seconds(lambda: journal.due(limit=100, timeout=TIMEOUT)) for _ in range(20))
    detail = f"{seconds * 1e3:.2f} ms"
    yield Figure("ms of a sweep over 10,000 parked executions", 5.0, seconds * 1e3, detail)


def _many(journal: SQLiteJournal) -> Iterator[Figure]:
    turn = _begun(journal, "many")
    steps = [
        Command(number, EntryKind.STEP, "bench.small", b"12345678", b"x" * 400, "default")
        for number in range(1, 1001)
    ]
    commit = _seconds(lambda: journal.commit(turn, Commit(time(), 0, steps), timeout=TIMEOUT))
    yield Figure("ms of a commit of 1,000 steps", 50.0, commit * 1e3, f"{commit * 1e3:.1f} ms")
    read = min(_seconds(lambda: journal.entries("many", timeout=TIMEOUT)) for _ in range(10))
    yield Figure("ms of reading 1,000 entries", 10.0, read * 1e3, f"{read * 1e3:.1f} ms")
