"""The journal in a file: the suite that all journals pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dispatchers.journals import Journal
from dispatchers.sqlite import SQLiteJournal
from dispatchers.testing.journals import JournalConformance, JournalHarness


class SQLiteJournalHarness(JournalHarness):
    """Journals of one file, which count a turn as given up soon."""

    lease = 2.0
    unread_after = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def opener(self) -> Callable[[], Journal]:
        """A function that opens the file."""
        return partial(
            SQLiteJournal, str(self._path), lease=self.lease, unread_after=self.unread_after
        )


class TestSQLiteJournal(JournalConformance):
    """Every promise of the protocol holds for a file."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> JournalHarness:
        """A file of its own."""
        return SQLiteJournalHarness(tmp_path / "work.db")
