"""What the shop writes down: one SQLite file, `shop.sqlite3` in the working directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from uuid import UUID

from dispatchers.outbox import schema

TABLES = """
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT, amount TEXT);
CREATE TABLE IF NOT EXISTS mails (order_id TEXT PRIMARY KEY, address TEXT, attempt INTEGER);
"""


@contextmanager
def books() -> Iterator[sqlite3.Connection]:
    """An open transaction on the books."""
    with closing(sqlite3.connect("shop.sqlite3", timeout=30)) as connection:
        connection.executescript(TABLES)
        connection.executescript(";".join(schema("sqlite")))  # for the target `outbox`
        with connection:
            yield connection


def book(order: UUID, customer: str, amount: Decimal) -> None:
    """Book an order; a second time changes nothing, as every task may run again."""
    with books() as connection:
        row = (str(order), customer, str(amount))
        connection.execute("INSERT OR IGNORE INTO orders VALUES (?, ?, ?)", row)


def note_mail(order: UUID, address: str, attempt: int) -> None:
    """Note that a mail was written, in which attempt."""
    with books() as connection:
        row = (str(order), address, attempt)
        connection.execute("INSERT OR IGNORE INTO mails VALUES (?, ?, ?)", row)


def report() -> str:
    """Orders, their sum, and mails, in a line."""
    with books() as connection:
        amounts = [Decimal(row[0]) for row in connection.execute("SELECT amount FROM orders")]
        mails = connection.execute("SELECT count(*), max(attempt) FROM mails").fetchone()
    total = sum(amounts, Decimal(0))
    return f"{len(amounts)} orders, {total} in all; {mails[0]} mails, attempt {mails[1]}"
