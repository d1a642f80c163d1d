"""`django_rq` keeps the contract, on Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatchers.testing import DispatcherConformance, Harness

from .harness import DjangoRQHarness

pytestmark = pytest.mark.slow  # what hands over is `rq`, whose suite runs with every change


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, _configured: None, shared_redis: str, tmp_path: Path) -> Harness:
        return DjangoRQHarness(shared_redis, tmp_path)
