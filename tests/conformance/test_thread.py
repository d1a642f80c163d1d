"""`thread` keeps the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dispatchers._stores.loading import dead_letters
from dispatchers.backends.thread import ThreadDispatcher
from dispatchers.testing import DispatcherConformance, Harness


class ThreadHarness(Harness):
    """Threads that run what comes."""

    without = {
        "received": "work is run as it comes",
        "stepping": "work is run as it comes",
        "crash": "a thread dies with its process, and the queue with it",
        "network": "the queue is in this process",
        "stall": "a put into memory waits for nobody",
        "processes": "each process has a queue of its own",
    }

    def __init__(self, folder: Path) -> None:
        self.letters = f"sqlite:{folder / 'dead.db'}"

    def make_dispatcher(self, **options: Any) -> ThreadDispatcher:
        return ThreadDispatcher(**{"dead_letters": self.letters, **options})

    def run_next(self, dispatcher: Any) -> None:
        """Threads do."""

    def dead(self, dispatcher: Any) -> list[bytes]:
        del dispatcher
        return [letter.body for letter in dead_letters(self.letters).list()]


class TestThread(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return ThreadHarness(tmp_path)
