"""`celery` keeps the contract, on Redis, on RabbitMQ, and in kombu's memory."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from dispatchers.testing import DispatcherConformance, Harness

from .harness import CeleryHarness


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_redis: str, tmp_path: Path) -> Harness:
        return CeleryHarness(shared_redis, tmp_path)


class TestRabbitMQ(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_rabbitmq: str, tmp_path: Path) -> Harness:
        return CeleryHarness(shared_rabbitmq, tmp_path)


@pytest.mark.slow  # as TestRabbitMQ but for the type of the queue
class TestQuorumQueue(DispatcherConformance):
    """RabbitMQ counts deliveries itself there."""

    @pytest.fixture
    def harness(self, shared_rabbitmq: str, tmp_path: Path) -> Harness:
        return CeleryHarness(shared_rabbitmq, tmp_path, task_default_queue_type="quorum")


class MemoryHarness(CeleryHarness):
    without = {
        "network": "kombu's memory transport is in this process",
        "stall": "kombu's memory transport never waits",
        "processes": "kombu's memory transport is in this process",
        "crash": "work in memory dies with its process",
    }


class TestMemory(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return MemoryHarness(f"memory://{uuid4().hex}", tmp_path)
