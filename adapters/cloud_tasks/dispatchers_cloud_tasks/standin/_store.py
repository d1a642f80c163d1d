"""The queues in an SQLite file: answered calls survive the process."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._messages import Queue, Task, since_epoch, timestamp

__all__ = ["TOMBSTONE", "Store"]

TOMBSTONE = 86400.0
"""Seconds that a finished task's name stays taken: `CreateTaskRequest.task`, up to 24 hours."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (
    name TEXT PRIMARY KEY, running INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    due REAL NOT NULL,
    executions INTEGER NOT NULL DEFAULT 0,
    previous TEXT,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS due ON tasks (queue, due, number);
CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS operations (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS keys (number INTEGER PRIMARY KEY, pem BLOB NOT NULL);
"""


class Store:
    """Queues, tasks, the names of finished tasks, and the signing keys.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        path.chmod(0o600)  # it holds a private key
        self._connection.execute("PRAGMA journal_mode=WAL")
        # Survives the process, which is all that a stand-in promises.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All of it or nothing; within another one it is part of that."""
        with self._lock:
            if self._connection.in_transaction:  # part of a larger one
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str, *values: object) -> Any:
        found = self._all(statement, *values)
        return found[0] if found else None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    # Queues.

    def queue(self, name: str) -> Any:
        """A queue, or None."""
        found = self._one("SELECT body FROM queues WHERE name = ?", name)
        return Queue.FromString(found[0]) if found else None

    def queues(self, parent: str) -> list[Any]:
        """The queues of a location, by name."""
        rows = self._all("SELECT body FROM queues ORDER BY name")
        return [q for row in rows if (q := Queue.FromString(row[0])).name.startswith(parent)]

    def put_queue(self, queue: Any) -> None:
        """Make a queue, or change it."""
        body = queue.SerializeToString()
        running = queue.state == Queue.State.RUNNING
        self._all("INSERT OR REPLACE INTO queues VALUES (?, ?, ?)", queue.name, running, body)

    def delete_queue(self, name: str) -> None:
        """Delete a queue and its tasks."""
        self.purge(name)
        self._all("DELETE FROM queues WHERE name = ?", name)

    def purge(self, queue: str) -> None:
        """Delete all tasks of a queue."""
        self._all("DELETE FROM tasks WHERE queue = ?", queue)

    # Tasks.

    def is_taken(self, name: str) -> bool:
        """Return true if a task has this name, or had it recently."""
        statement = (
            "SELECT 1 FROM tasks WHERE name = ?1 "
            "UNION ALL SELECT 1 FROM names WHERE name = ?1 AND until > ?2"
        )
        return bool(self._one(statement, name, time.time()))

    def add(self, queue: str, task: Any) -> None:
        """Keep a new task."""
        self._all(
            "INSERT INTO tasks (name, queue, due, body) VALUES (?, ?, ?, ?)",
            task.name,
            queue,
            since_epoch(task.schedule_time),
            task.SerializeToString(),
        )

    def task(self, name: str) -> Any:
        """A task, or None."""
        found = self._one("SELECT body FROM tasks WHERE name = ?", name)
        return Task.FromString(found[0]) if found else None

    def tasks(self, queue: str, after: int = 0, limit: int = -1) -> list[tuple[int, Any]]:
        """Tasks of a queue in the order in which they were made, each with its number."""
        rows = self._all(
            "SELECT number, body FROM tasks WHERE queue = ? AND number > ? ORDER BY number LIMIT ?",
            queue,
            after,
            limit,
        )
        return [(number, Task.FromString(body)) for number, body in rows]

    def counts(self, name: str) -> tuple[int, str | None]:
        """Responses of a task other than 5xx, and what the last attempt ended with."""
        found = self._one("SELECT executions, previous FROM tasks WHERE name = ?", name)
        return tuple(found) if found else (0, None)

    def update(self, task: Any, *, executions: int, previous: str | None) -> None:
        """Keep what an attempt has changed."""
        self._all(
            "UPDATE tasks SET due = ?, executions = ?, previous = ?, body = ? WHERE name = ?",
            since_epoch(task.schedule_time),
            executions,
            previous,
            task.SerializeToString(),
            task.name,
        )

    def schedule(self, name: str, due: float) -> Any:
        """Make a task due at another time; the task, or None."""
        with self.transaction():
            task = self.task(name)
            if task is not None:
                task.schedule_time.CopyFrom(timestamp(due))
                executions, previous = self.counts(name)
                self.update(task, executions=executions, previous=previous)
            return task

    def finish(self, name: str) -> bool:
        """Delete a task; its name stays taken for a while. False where there is none."""
        with self.transaction():
            there = bool(self._one("SELECT 1 FROM tasks WHERE name = ?", name))
            if there:
                now = time.time()
                self._all("DELETE FROM tasks WHERE name = ?", name)
                self._all("INSERT OR REPLACE INTO names VALUES (?, ?)", name, now + TOMBSTONE)
                self._all("DELETE FROM names WHERE until < ?", now)
            return there

    def due(self, now: float, skip: Sequence[str], limit: int) -> list[tuple[str, str]]:
        """Queue and name of tasks that are due, of queues that run, none of `skip`."""
        marks = ",".join("?" * len(skip))
        rows = [
            row
            for queue in self._running()  # one by one: a paused queue may hold a great many
            for row in self._all(
                "SELECT due, number, queue, name FROM tasks WHERE queue = ? AND due <= ? "  # noqa: S608 - marks
                f"AND name NOT IN ({marks}) ORDER BY due, number LIMIT ?",
                queue,
                now,
                *skip,
                limit,
            )
        ]
        return [(queue, name) for _, _, queue, name in sorted(rows)[:limit]]

    def next_due(self, now: float) -> float | None:
        """Return when the next waiting task of a running queue becomes due."""
        statement = "SELECT MIN(due) FROM tasks WHERE queue = ? AND due > ?"
        found = [self._one(statement, queue, now)[0] for queue in self._running()]
        return min((due for due in found if due is not None), default=None)

    def _running(self) -> list[str]:
        return [row[0] for row in self._all("SELECT name FROM queues WHERE running")]

    # The rest.

    def operation(self, key: str) -> bytes | None:
        """The answer that a batch call with this request id had."""
        found = self._one("SELECT body FROM operations WHERE id = ?", key)
        return found[0] if found else None

    def keep_operation(self, key: str, body: bytes) -> None:
        """Keep the answer of a batch call."""
        self._all("INSERT OR REPLACE INTO operations VALUES (?, ?)", key, body)

    def signing_keys(self) -> list[bytes]:
        """The signing keys as PEM, the current one last."""
        return [row[0] for row in self._all("SELECT pem FROM keys ORDER BY number")]

    def add_key(self, pem: bytes) -> None:
        """Sign with another key from now on."""
        self._all("INSERT INTO keys (pem) VALUES (?)", pem)
