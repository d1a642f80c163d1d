"""`failover` and `spill` pass work on as the rules F1 to F4 say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dispatchers import BaseDispatcher
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing.passing import PassingConformance, PassingHarness


class FailoverHarness(PassingHarness):
    def make(self, members: Sequence[BaseDispatcher], deadline: float) -> BaseDispatcher:
        return FailoverDispatcher(to=members, deadline=deadline)


class SpillHarness(PassingHarness):
    most = 1
    keeps = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Any] = []

    def make(self, members: Sequence[BaseDispatcher], deadline: float) -> BaseDispatcher:
        spill = SpillDispatcher(
            to=members[0], path=str(self.folder / "spill.db"), deadline=deadline
        )
        spill.forwarder.start = lambda: None  # type: ignore[method-assign]
        self.made.append(spill)
        return spill

    def close(self) -> None:
        for each in self.made:
            each.close(5)


class TestFailover(PassingConformance):
    @pytest.fixture
    def harness(self) -> PassingHarness:
        return FailoverHarness()


class TestSpill(PassingConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> PassingHarness:
        return SpillHarness(tmp_path)
