"""The adapters that are broken elsewhere are sound: they keep the contract."""

from __future__ import annotations

import pytest

from dispatchers.testing import DispatcherConformance, Harness

from .reference import ShelfHarness, SocketHarness


class TestShelf(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return ShelfHarness()


class TestSocket(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return SocketHarness()
