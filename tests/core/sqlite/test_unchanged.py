"""`Unchanged`: what is known of a file holds until a process commits to it (F8)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatchers.sqlite import Database, SQLiteDeadLetters
from dispatchers.sqlite._held import Bounds, HeldRows, NewRow

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere nothing is known")
AGO = 10_000_000_007
"""Nanoseconds, and no whole number of seconds."""


def opened(path: Path) -> HeldRows:
    database = Database(path, synchronous="normal")
    return HeldRows(database, Bounds(9, 9999, 9.0), lambda: SQLiteDeadLetters(database))


def written(path: Path, nanoseconds: int) -> None:
    """Set the time at which the log was written."""
    os.utime(f"{path}-wal", ns=(nanoseconds, nanoseconds))


def lanes(rows: HeldRows) -> set[str]:
    return rows.lanes({"a"}, timeout=9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "held.db"


@pytest.fixture
def rows(path: Path) -> Iterator[HeldRows]:
    """Rows of which it is known that there are none."""
    made = opened(path)
    lanes(made)
    written(path, time.time_ns() - AGO)
    lanes(made)
    assert made._empty.holds()
    yield made
    made.database.close(5)


def row(name: str) -> NewRow:
    return NewRow(name, "t", "a", b"body", deduplicate=False)


def test_while_nothing_is_written_no_statement_is_executed(rows: HeldRows) -> None:
    """A dispatch before a healthy broker costs one look at the log."""
    asked: list[object] = []
    rows.database.read = lambda *given, **more: asked.append(given)  # type: ignore[method-assign,assign,return-value]

    assert lanes(rows) == set()
    assert asked == []


def test_what_another_process_has_put_is_seen(path: Path, rows: HeldRows) -> None:
    """F8: at the next call, whoever has put it."""
    other = opened(path)
    other.put([row("r0")], timeout=9)
    seen = lanes(rows)
    other.database.close(5)

    assert seen == {"a"}


def test_what_this_process_has_put_is_seen(rows: HeldRows) -> None:
    """F8: as well."""
    rows.put([row("r0")], timeout=9)

    assert lanes(rows) == {"a"}


def test_nothing_is_learnt_while_a_process_is_about_to_commit(path: Path) -> None:
    """F8: what it has written by then would come to be without a further change of the log."""
    mine = opened(path)
    lanes(mine)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        written(path, time.time_ns() - AGO)
        lanes(mine)
        learnt = mine._empty.holds()
        other.execute("ROLLBACK")
    lanes(mine)
    then = mine._empty.holds()
    mine.database.close(5)

    assert (learnt, then) == (False, True)


@pytest.mark.parametrize(
    "when",
    [
        pytest.param(lambda: time.time_ns() + 10**8, id="just now"),
        pytest.param(lambda: time.time_ns() + AGO, id="by a clock that was set back since"),
        pytest.param(lambda: (time.time_ns() // 10**9 - 9) * 10**9, id="in whole seconds"),
    ],
)
def test_nothing_is_learnt_from_a_time_that_may_come_again(
    path: Path, when: Callable[[], int]
) -> None:
    """F8: a further write would have the same, and not be seen."""
    mine = opened(path)
    lanes(mine)
    written(path, when())
    lanes(mine)
    learnt = mine._empty.holds()
    mine.database.close(5)

    assert not learnt


def test_a_file_in_the_place_of_the_former_one_is_looked_at(path: Path, rows: HeldRows) -> None:
    """F8: what is put there waits as well."""
    for each in path.parent.glob("held.db*"):
        each.unlink()
    other = opened(path)
    other.put([row("r0")], timeout=9)
    seen = lanes(rows)
    other.database.close(5)

    assert seen == {"a"}


def test_without_a_log_nothing_is_known(path: Path, rows: HeldRows) -> None:
    """As after the last process has closed the file."""
    Path(f"{path}-wal").unlink()

    assert not rows._empty.holds()
