"""What the bakery writes down: one SQLite file, `bakery.sqlite3` in the working directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from uuid import UUID

TABLE = """
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, cake TEXT, baked TEXT, reminded INTEGER)
"""


@contextmanager
def books() -> Iterator[sqlite3.Connection]:
    """An open transaction on the books."""
    with closing(sqlite3.connect("bakery.sqlite3", timeout=30)) as connection:
        connection.execute(TABLE)
        with connection:
            yield connection


def book(order: UUID, cake: str) -> None:
    """Book an order."""
    with books() as connection:
        connection.execute("INSERT INTO orders VALUES (?, ?, NULL, 0)", (str(order), cake))


def note_baked(order: UUID, words: str) -> None:
    """Note that an order was baked."""
    with books() as connection:
        connection.execute("UPDATE orders SET baked = ? WHERE id = ?", (words, str(order)))


def note_reminded(order: UUID) -> None:
    """Note that a customer was reminded."""
    with books() as connection:
        connection.execute("UPDATE orders SET reminded = 1 WHERE id = ?", (str(order),))


def look_up(order: UUID) -> tuple[str, str | None, int] | None:
    """Cake, what was baked if it was, and whether the customer was reminded."""
    with books() as connection:
        query = "SELECT cake, baked, reminded FROM orders WHERE id = ?"
        found: tuple[str, str | None, int] | None = connection.execute(
            query, (str(order),)
        ).fetchone()
        return found
