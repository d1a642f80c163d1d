"""Servers for tests: started, paused, killed, started again, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

import pytest

from dispatchers.testing import servers
from dispatchers.testing.processes import family
from dispatchers.testing.servers import MissingServerError, RabbitMQServer, RedisServer, answers

REQUIRED = bool(os.environ.get("DISPATCHERS_REQUIRE_SERVICES"))
needs_redis = pytest.mark.skipif(
    not (REQUIRED or shutil.which("redis-server")), reason="needs redis-server"
)
needs_rabbitmq = pytest.mark.skipif(
    not (REQUIRED or shutil.which("rabbitmq-server")), reason="needs rabbitmq-server"
)


def _said(server: RedisServer, command: str) -> bytes:
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1000)


@needs_redis
def test_a_killed_redis_keeps_what_it_confirmed() -> None:
    """With its append-only file a private Redis has after `kill -9` what it had before."""
    with RedisServer(keeps="always") as server:
        _said(server, "SET a 1")
        server.kill()
        assert not answers("redis", server.host, server.port)
        server.start()

        assert _said(server, "GET a") == b"$1\r\n1\r\n"


@needs_redis
def test_a_removed_server_leaves_nothing() -> None:
    """Afterwards neither its process nor its folder is there."""
    with RedisServer() as server:
        pid = server.pid
        server.pause()

    assert not server.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


@needs_rabbitmq
@pytest.mark.slow
def test_a_private_rabbitmq_starts_again_and_leaves_no_port_mapper() -> None:
    """It starts, survives a stop and a start on its port, and takes its port mapper with it."""
    with RabbitMQServer() as server:
        mapper = str(server._mapper_port)
        server.kill()
        server.start()
        assert "Status of node" in server.control("status")

    processes = subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
    assert f"-port {mapper}" not in processes
    assert server.node not in processes


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no program, the error says which."""
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(MissingServerError, match="no redis-server on the path"):
        RedisServer()


def test_a_named_server_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable comes first."""
    monkeypatch.setenv("DISPATCHERS_TEST_REDIS_URL", "redis://elsewhere:1/2")

    assert servers.redis_url() == "redis://elsewhere:1/2"


@needs_rabbitmq
@pytest.mark.slow
def test_a_paused_server_answers_nothing_more_and_a_resumed_one_at_once() -> None:
    """Pause and resume are in force when they return."""
    with RabbitMQServer() as server:
        for _ in range(3):
            assert server.pid is not None
            server.pause()
            assert all(each.is_stopped for each in family(server.pid))
            server.resume()
            assert server.answers()


@needs_redis
def test_a_killed_server_has_gone_when_it_returns() -> None:
    """Nothing of its family is left that could answer."""
    with RedisServer() as server:
        assert server.pid is not None
        pid = server.pid
        server.kill()

        assert family(pid) == []
        assert not server.answers()
