"""The index that the demo's tasks write: one row per file, however often a task runs."""

from __future__ import annotations

import json
import keyword
import random
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

__all__ = ["Facts", "Found", "Index", "facts", "index_at"]

DEFINITION = re.compile(r"^[ \t]*+(?:async )?(def|class) (\w+)", re.MULTILINE)
CALL = re.compile(r"\b([^\W\d]\w*+)\(")
ENCODING = re.compile(rb"^[^\n]*\n?[^\n]*?coding[:=][ \t]*([-\w.]+)")
PATIENCE = 20.0
"""Seconds that a task waits for the others to have written."""

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS files (
        path TEXT PRIMARY KEY, lines INTEGER, words INTEGER, functions INTEGER, classes INTEGER,
        calls TEXT, attempt INTEGER, written INTEGER DEFAULT 1
    )""",
    "CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT)",
)
ADD = """
INSERT INTO files (path, lines, words, functions, classes, calls, attempt)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET written = written + 1
"""
NOTE = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
TOTALS = """
SELECT count(*), total(lines), total(words), total(functions), total(classes), total(written > 1)
FROM files
"""


class Facts(NamedTuple):
    """Counts of one file."""

    lines: int
    words: int
    functions: int
    classes: int
    calls: str
    """JSON: how often each name is called."""


def facts(data: bytes) -> Facts:
    """Return the counts of a file's text.

    Raises:
        ValueError: It is not text.
    """
    # Text has no zero bytes: this is the poisoned file of the demo, or a binary one.
    if b"\0" in data:
        raise ValueError("this file is not text: it has null bytes")
    text = _decoded(data)
    definitions = DEFINITION.findall(text)
    kinds = Counter(kind for kind, _ in definitions)
    # Less the definitions, which look like calls.
    called = Counter(CALL.findall(text)) - Counter(name for _, name in definitions)
    calls = {name: count for name, count in called.items() if not keyword.iskeyword(name)}
    words = len(text.split())
    return Facts(text.count("\n"), words, kinds["def"], kinds["class"], json.dumps(calls))


def _decoded(data: bytes) -> str:
    """The text by the encoding that the file names; some of the library's tests name none."""
    named = ENCODING.match(data)
    try:
        return data.decode(named[1].decode() if named else "utf-8")
    except (LookupError, ValueError):
        # Takes any byte: some of the library's tests are in an encoding that they do not name.
        return data.decode("latin-1")


class Found(NamedTuple):
    """Totals over all files."""

    files: int
    lines: int
    words: int
    functions: int
    classes: int
    rewritten: int
    """Files whose task ran more than once to its end; each is in the index once all the same."""
    attempts: dict[int, int]
    """How many files were indexed in which attempt."""
    longest: tuple[str, int]
    """The path of the longest file and its lines."""
    called: list[tuple[str, int]]
    """The names that are called most often, and how often."""


class Index:
    """The results in one SQLite file; every write is a transaction that may be repeated.

    Args:
        path: The file, created if need be. It stays open until `close`: opening and closing it
            for each result would write to the disk each time.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    def create(self) -> None:
        """Lay the tables out."""
        with self._open() as connection:
            for statement in SCHEMA:
                connection.execute(statement)

    def add(self, path: str, found: Facts, attempt: int) -> None:
        """Write what a file holds; a second time changes nothing but the count of writings."""
        with self._open() as connection:
            connection.execute(ADD, (path, *found, attempt))

    def note(self, name: str, value: str) -> None:
        """Remember something about the run."""
        with self._open() as connection:
            connection.execute(NOTE, (name, value))

    def noted(self, name: str) -> str | None:
        """Return the note of that name."""
        rows = self._rows("SELECT value FROM notes WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def count(self) -> int:
        """Return the number of indexed files."""
        return int(self._rows("SELECT count(*) FROM files")[0][0])

    def found(self, names: int = 8) -> Found:
        """Totals over all files."""
        files, lines, words, functions, classes, rewritten = map(int, self._rows(TOTALS)[0])
        attempts = self._rows("SELECT attempt, count(*) FROM files GROUP BY attempt ORDER BY 1")
        longest = self._rows("SELECT path, lines FROM files ORDER BY lines DESC LIMIT 1")
        return Found(
            files,
            lines,
            words,
            functions,
            classes,
            rewritten,
            attempts=dict(attempts),
            longest=longest[0] if longest else ("", 0),
            called=self._called().most_common(names),
        )

    def _called(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for (calls,) in self._rows("SELECT calls FROM files"):
            total.update(json.loads(calls))
        return total

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._open() as connection:
            return connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        """A transaction of its own, once the others have written.

        SQLite's own waiting starves some where many write, so this asks again by itself.
        """
        until = time.monotonic() + PATIENCE
        with self._lock:
            while (connection := self._begun(until)) is None:
                time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311 - spreads load, no secret
            with connection:
                yield connection

    def _begun(self, until: float) -> sqlite3.Connection | None:
        """The connection in a transaction; None if others are at it."""
        try:
            self._connection = self._connection or self._connected()
            # At once, as a read that becomes a write later may find the file taken, and cannot wait
            # then.
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            return None
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        # Threads share it under the lock; without a timeout, as the waiting is done here.
        connection = sqlite3.connect(
            self._path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.OperationalError:
            connection.close()
            raise
        return connection


@cache
def index_at(path: str) -> Index:
    """The index in a file, opened once per process."""
    return Index(path)
