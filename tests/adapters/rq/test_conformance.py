"""`rq` keeps the contract, on Redis, and with `is_async=False`, which is RQ's own fake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dispatchers_rq import RQDispatcher

from dispatchers.testing import DispatcherConformance, Harness

from .harness import RQHarness


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_redis: str, tmp_path: Path) -> Harness:
        return RQHarness(shared_redis, tmp_path)


class EagerHarness(Harness):
    """Work that runs in the call."""

    without = {
        "received": "work is run in the call, and held nowhere",
        "stepping": "work is run in the call",
        "dead": "the answer is FAILED, and nothing is kept",
        "crash": "work dies with its process",
        "network": "no Redis is contacted",
        "stall": "nothing is waited for",
        "processes": "work is run in the process of the call",
        "retry": "one attempt, whose failure is the answer",
    }

    def make_dispatcher(self, **options: Any) -> RQDispatcher:
        return RQDispatcher(is_async=False, **options)

    def run_next(self, dispatcher: Any) -> object:
        return None


class TestEager(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return EagerHarness()
