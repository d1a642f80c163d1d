"""Counting commits of a SQLite file, by its write-ahead log."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

HEADER, FRAME_HEADER = 32, 24


def counted(path: Path, act: Callable[[], object]) -> int:
    """Return how many transactions of all processes an act commits."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        # As long as one reads, the log is not begun anew.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        before = _commits(path)
        act()
        return _commits(path) - before


def _commits(path: Path) -> int:
    """Return the frames of the log that end a transaction: they tell the size of the file."""
    log = path.with_name(path.name + "-wal").read_bytes()
    size, salts = struct.unpack(">I", log[8:12])[0], log[16:24]
    starts = range(HEADER, len(log) - FRAME_HEADER, FRAME_HEADER + size)
    # Frames of other salts are left from before the log was begun anew.
    return sum(
        log[at + 4 : at + 8] != b"\0\0\0\0" and log[at + 8 : at + 16] == salts for at in starts
    )
