"""Applications under a real uvicorn, and dispatchers that wait until they are told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    DispatchResponse,
    ErrorCategory,
    Sent,
)

PATIENCE = 30.0
"""Seconds that anything may take on a machine that is very busy."""


class Gated(BaseDispatcher):
    """Notes what it is asked for, and hands over once the gate is open."""

    name = "gated"
    contract = 1
    capabilities = Capabilities(confirmed=True, durable=True)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"deadline": 2 * PATIENCE, **settings})
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self.gate.wait(PATIENCE)
        self.asked.append(request.task)
        return Sent(request.id)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return False


class Told:
    """The final responses, for whoever waits for them."""

    def __init__(self) -> None:
        self.responses: list[DispatchResponse] = []

    def __call__(self, response: DispatchResponse) -> None:
        self.responses.append(response)

    def wait(self, count: int = 1) -> list[str]:
        """The statuses of the first responses, once there are as many."""
        eventually(lambda: len(self.responses) >= count)
        return [each.status.value for each in self.responses]


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.005)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def gated() -> Iterator[Gated]:
    """A dispatcher that can be held up."""
    made = Gated()
    yield made
    made.gate.set()
    made.close(0)


class Servers:
    """Serves applications, each on a port of its own."""

    def __init__(self) -> None:
        self._running: list[tuple[uvicorn.Server, threading.Thread, httpx.Client]] = []

    def __call__(self, app: FastAPI) -> httpx.Client:
        """A client for an application that is served from now on."""
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        client = httpx.Client(base_url=url, timeout=PATIENCE)
        self._running.append((server, thread, client))
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started
        return client

    def stop(self) -> None:
        """Tell every server to end in order."""
        for server, _, _ in self._running:
            server.should_exit = True

    def join(self) -> None:
        """Wait until every server has ended."""
        for _, thread, client in self._running:
            thread.join(PATIENCE)
            client.close()
            assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Servers]:
    """Serves applications under uvicorn."""
    servers = Servers()
    yield servers
    servers.stop()
    servers.join()
