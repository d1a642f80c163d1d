"""`acme` keeps the contract of `dispatchers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from acme_queue import AcmeDispatcher

from dispatchers import WorkerOptions
from dispatchers.testing import DispatcherConformance, Harness, WorkerConformance


class AcmeHarness(Harness):
    """A folder of its own."""

    without = {
        "network": "the queue is a folder",
        "stall": "a rename on a local disk does not wait",
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make_dispatcher(self, **options: Any) -> AcmeDispatcher:
        return AcmeDispatcher(path=self.folder, **options)

    def received(self, dispatcher: Any) -> list[bytes]:
        return dispatcher.spool.bodies("waiting", "claimed")

    def run_next(self, dispatcher: Any) -> object:
        return dispatcher._worker(WorkerOptions()).step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return dispatcher.spool.bodies("dead")

    def leased(self, seconds: float) -> dict[str, object]:
        return {"lease": seconds}

    def crash(self, dispatcher: Any) -> None:
        if (work := dispatcher.spool.claim()) is not None:
            dispatcher.spool.abandon(work)


class TestAcme(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> AcmeHarness:
        return AcmeHarness(tmp_path / "spool")


class TestAcmeWorker(WorkerConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> AcmeHarness:
        return AcmeHarness(tmp_path / "spool")
