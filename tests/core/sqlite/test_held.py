"""The file of `spill` passes the suite of stores of held work, and what is its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dispatchers.forwarding import Source
from dispatchers.sqlite import Database, SQLiteDeadLetters
from dispatchers.sqlite._held import Bounds, HeldRows, NewRow
from dispatchers.testing.sources import PutRow, SourceConformance, SourceHarness

BOUNDS = Bounds(items=10_000, bytes=2**30, age=86400.0)


def opened(path: Path) -> HeldRows:
    """Open a file as one more process does."""
    database = Database(path, synchronous="normal")
    return HeldRows(database, BOUNDS, lambda: SQLiteDeadLetters(database), lease=0.5)


class HeldHarness(SourceHarness):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path, synchronous="normal")
        self.rows = HeldRows(self.database, BOUNDS, lambda: SQLiteDeadLetters(self.database))

    @property
    def opener(self) -> Callable[[], Source]:
        return functools.partial(opened, self.path)

    def put(self, rows: Sequence[PutRow]) -> None:
        self.rows.put([NewRow(*each) for each in rows], timeout=9)

    def dead(self) -> list[bytes]:
        return [each.body for each in SQLiteDeadLetters(self.database).list(limit=10_000)]

    def in_transaction(self, source: Source) -> bool:
        assert isinstance(source, HeldRows)
        connection = source.database._slot.connection
        return connection is not None and connection.in_transaction

    def close_source(self, source: Source) -> None:
        assert isinstance(source, HeldRows)
        source.database.close(5)

    def close(self) -> None:
        self.database.close(5)


@pytest.mark.usefixtures("importable")
class TestHeldRows(SourceConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SourceHarness:
        return HeldHarness(tmp_path / "held.db")

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_killed_at_any_line_it_loses_nothing(
        self, harness: SourceHarness, tmp_path: Path
    ) -> None:
        super().test_killed_at_any_line_it_loses_nothing(harness, tmp_path)
