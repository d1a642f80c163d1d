"""Effects of the steps: one row for each, in `books.sqlite3` in the working directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from dispatchers import current_run

TABLE = "CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, number INTEGER, what TEXT)"


@contextmanager
def books() -> Iterator[sqlite3.Connection]:
    """An open transaction on the books."""
    with closing(sqlite3.connect("books.sqlite3", timeout=30)) as connection:
        connection.execute(TABLE)
        with connection:
            yield connection


def note(number: int, what: str) -> None:
    """Note an effect of the running step, once: a step that runs again has the same request id."""
    row = (current_run().request.id, number, what)
    with books() as connection:
        connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?)", row)


def effects(number: int) -> list[str]:
    """Return the effects of an order, sorted."""
    select = "SELECT what FROM effects WHERE number = ? ORDER BY what"
    with books() as connection:
        return [what for (what,) in connection.execute(select, (number,))]
