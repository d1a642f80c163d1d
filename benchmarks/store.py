"""Dispatching to `sqlite`, over a bare insert into the same table."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import time

import dispatchers

from ._measure import Figure, interleaved, ratio
from .tasks import small

INSERT = """
INSERT INTO jobs (id, task, queue, state, priority, run_at, attempt, token, created_at, body)
VALUES (?, ?, ?, 0, 0, ?, 1, ?, ?, ?)
"""


def _bare(path: Path):
    """What writes one row into our table and waits for the disk, and nothing else."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    numbers = count()

    def insert() -> None:
        number, now = next(numbers), time()
        row = (f"{number:032x}", "bench.small", "default", now, number, now, BODY)
        connection.execute(INSERT, row)

    return insert


BODY = b'{"version":1,"task":"bench.small","id":"x","created_at":"y","payload":{}}' * 2


def dispatch() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        ours, bare, many = (Path(folder) / name for name in ("ours.db", "bare.db", "many.db"))
        for path in (ours, bare, many):
            _prepared(path)
        configured = {"backend": "sqlite", "path": str(ours)}
        in_bulk = {"backend": "sqlite", "path": str(many), "deadline": 30.0}
        with dispatchers.override(default=configured, bulk=in_bulk):
            single, insert = interleaved(
                lambda: small.dispatch(number=1, text="abc"), _bare(bare), rounds=60, each=100
            )
            yield ratio("`sqlite` dispatch over a bare insert, full sync", 1.25, single, insert)
            yield from _bulk()


def _prepared(path: Path) -> None:
    with dispatchers.override(default={"backend": "sqlite", "path": str(path)}):
        small.dispatch(number=0, text="first").raise_for_error()


def _bulk() -> Iterator[Figure]:
    def batch() -> None:
        added = small.options(dispatcher="bulk").batch()
        for number in range(100):
            added.add(number=number, text="abc")
        added.dispatch().raise_for_error()

    def loop() -> None:
        for number in range(100):
            small.dispatch(number=number, text="abc")

    many, singles = interleaved(batch, loop, rounds=30, each=1)
    yield ratio("`dispatch_many` of 100 over a loop of single dispatches", 0.10, many, singles, 1e3)
