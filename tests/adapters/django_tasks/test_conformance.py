"""`django_tasks` keeps the contract over published backends, as far as each can."""

from __future__ import annotations

import pytest

from dispatchers.testing import DispatcherConformance, Harness, Journal

from .harness import DatabaseHarness, ImmediateHarness, RedisHarness, RQHarness

REPEATS = pytest.mark.xfail(reason="redis-py repeats by itself, and does not say what was sent")


@pytest.mark.slow
class TestDatabase(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        pytest.importorskip("django_tasks_db")
        return DatabaseHarness()


class TestImmediate(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return ImmediateHarness()


@pytest.mark.slow
class TestRQ(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_redis: str) -> Harness:
        pytest.importorskip("django_tasks_rq")
        return RQHarness(shared_redis)

    @REPEATS
    def test_a_refused_connection_is_rejected(self, harness: Harness, journal: Journal) -> None:
        super().test_a_refused_connection_is_rejected(harness, journal)


class TestRedis(DispatcherConformance):
    @pytest.fixture
    def harness(self, shared_redis: str) -> Harness:
        pytest.importorskip("django_tasks_redis", reason="wants Django 6 and Python 3.12")
        return RedisHarness(shared_redis)

    @REPEATS
    def test_a_refused_connection_is_rejected(self, harness: Harness, journal: Journal) -> None:
        super().test_a_refused_connection_is_rejected(harness, journal)
