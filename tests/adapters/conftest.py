"""Servers: shared ones for what only dispatches and works, private ones for what breaks them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from dispatchers.testing.servers import (
    MissingServerError,
    RabbitMQServer,
    RedisServer,
    rabbitmq_url,
    redis_url,
)


def _needed(name: str, get: Callable[[], str]) -> str:
    """A server's address; without one the test is left out by name, or fails where all must run."""
    try:
        return get()
    except MissingServerError as exc:
        if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
            raise
        pytest.skip(f"needs {name}: {exc}")


@pytest.fixture(scope="session")
def shared_redis() -> str:
    """The address of a Redis that other tests use as well."""
    return _needed("Redis", redis_url)


@pytest.fixture(scope="session")
def shared_rabbitmq() -> str:
    """The address of a RabbitMQ that other tests use as well."""
    return _needed("RabbitMQ", rabbitmq_url)


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may kill."""
    _needed("redis-server", lambda: RedisServer().folder.rmdir() or "")
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def private_rabbitmq() -> Iterator[RabbitMQServer]:
    """A RabbitMQ of the module's own, which its tests may stop, kill and start again."""
    _needed("rabbitmq-server", lambda: RabbitMQServer().folder.rmdir() or "")
    with RabbitMQServer() as server:
        yield server


@pytest.fixture(scope="session")
def _servers() -> None:
    """Both servers' programs are on this machine."""
    _needed("redis-server", lambda: RedisServer().folder.rmdir() or "")
    _needed("rabbitmq-server", lambda: RabbitMQServer().folder.rmdir() or "")
