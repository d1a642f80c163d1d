"""A stand-in for the whole session, in a process of its own; and others for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dispatchers_cloud_tasks  # noqa: F401 - before anything imports gRPC
import pytest
from dispatchers_cloud_tasks.standin import StandIn

from .harness import official_client
from .service import Service
from .web import Web


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A stand-in that tests share: each makes queues of its own."""
    with Service(tmp_path_factory.mktemp("standin")) as found:
        yield found


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    """One in this process, with the queue `default`."""
    with StandIn(tmp_path / "standin") as found:
        found.create_queue("default", min_backoff=0.05)
        yield found


@pytest.fixture
def client(standin: StandIn) -> Iterator[Any]:
    """The official client."""
    found = official_client(standin.address)
    yield found
    found.transport.close()


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server for deliveries."""
    with Web() as found:
        yield found
