"""`inline` keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers.backends.inline import InlineDispatcher
from dispatchers.testing import DispatcherConformance, Harness


class InlineHarness(Harness):
    """Work that runs in the call."""

    without = {
        "received": "nothing waits",
        "stepping": "nothing waits",
        "dead": "the answer says it",
        "crash": "the worker is the caller",
        "network": "there is none",
        "stall": "there is nobody to wait for",
        "processes": "work runs where it is dispatched",
    }
    retrying = {"retries": "sleep"}

    def make_dispatcher(self, **options: Any) -> InlineDispatcher:
        return InlineDispatcher(**options)

    def run_next(self, dispatcher: Any) -> None:
        """It has run already."""


class TestInline(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return InlineHarness()
