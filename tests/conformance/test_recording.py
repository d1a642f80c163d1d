"""`recording` keeps the contract: what a test records is what a queue would get."""

from __future__ import annotations

from typing import Any

import pytest

from dispatchers.testing import DispatcherConformance, Harness, RecordingDispatcher


class RecordingHarness(Harness):
    """A record."""

    without = {
        "crash": "no worker holds work, so that none can die with it",
        "network": "the record is in this process",
        "stall": "nobody is waited for",
        "processes": "each process has a record of its own",
    }

    def make_dispatcher(self, **options: Any) -> RecordingDispatcher:
        return RecordingDispatcher(**options)

    def received(self, dispatcher: Any) -> list[bytes]:
        return [job.dispatched.body for job in dispatcher._book.waiting]

    def run_next(self, dispatcher: Any) -> object:
        return dispatcher.run_next()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [entry.body for entry in dispatcher.dead]


class TestRecording(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return RecordingHarness()
