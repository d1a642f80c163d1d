"""A stand-in for the whole session, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import dispatchers_cloud_tasks  # noqa: F401 - before anything imports gRPC
import pytest

from .service import Service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A stand-in that tests share: each makes queues of its own."""
    with Service(tmp_path_factory.mktemp("standin")) as found:
        yield found
