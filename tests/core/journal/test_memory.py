"""`MemoryJournal` keeps the promises of the protocol."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dispatchers._journal.memory import MemoryJournal
from dispatchers.journals import Journal
from dispatchers.testing.journals import JournalConformance, JournalHarness


class MemoryHarness(JournalHarness):
    """One journal, which is opened once and shared."""

    without = {"processes": "it is in one process"}
    lease = 2.0
    unread_after = 0.3

    def __init__(self) -> None:
        self._journal = MemoryJournal(lease=self.lease, unread_after=self.unread_after)

    @property
    def opener(self) -> Callable[[], Journal]:
        return lambda: self._journal


class TestMemory(JournalConformance):
    @pytest.fixture
    def harness(self) -> JournalHarness:
        return MemoryHarness()
