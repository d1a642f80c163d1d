"""`django_q` keeps the contract, on both of django-q2's brokers."""

from __future__ import annotations

import pytest

from dispatchers.testing import DispatcherConformance, Harness

from .harness import OrmHarness, RedisHarness

pytestmark = pytest.mark.slow


class TestOrm(DispatcherConformance):
    @pytest.fixture
    def harness(self, _tables: None) -> Harness:
        return OrmHarness()


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, _tables: None, shared_redis: str) -> Harness:
        return RedisHarness(shared_redis)
