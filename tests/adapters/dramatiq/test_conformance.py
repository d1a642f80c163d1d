"""`dramatiq` keeps the contract, on Redis, on RabbitMQ, and on Dramatiq's stub broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatchers.testing import DispatcherConformance, Harness

from .harness import RabbitHarness, RedisHarness, StubHarness


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_redis: str, tmp_path: Path) -> Harness:
        return RedisHarness(shared_redis, tmp_path)


class TestRabbitMQ(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_rabbitmq: str, tmp_path: Path) -> Harness:
        return RabbitHarness(shared_rabbitmq, tmp_path)


class TestStub(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return StubHarness(tmp_path)
