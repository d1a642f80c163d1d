"""The worker's route over a bare view of the same application, under uvicorn."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from dispatchers.http import PATH

from ._fastapi_server import SECRET, async_task, sync_task
from ._measure import Figure, interleaved, ratio

SERVER = ("uvicorn", "benchmarks._fastapi_server:app", "--no-access-log", "--log-level", "warning")


def route() -> Iterator[Figure]:
    with ExitStack() as stack:
        port = stack.enter_context(_served())
        bodies = [
            each.request(1, "x").model_dump_json(exclude={"deadline", "deduplicate"}).encode()
            for each in (async_task, sync_task)
        ]
        posts = [
            stack.enter_context(_client(port, path, body))
            for path, body in (("/bare", bodies[0]), (PATH, bodies[0]), (PATH, bodies[1]))
        ]
        bare, ours_async, ours_sync = interleaved(*posts, rounds=40, each=100)
        yield ratio(
            "fastapi: the worker's route, async task, over a bare view", 1.5, ours_async, bare
        )
        yield ratio("the same, sync task (on a thread)", 1.5, ours_sync, bare)


@contextmanager
def _served() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", *SERVER, "--fd", str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            try:
                yield listener.getsockname()[1]
            finally:
                process.terminate()


@contextmanager
def _client(port: int, path: str, body: bytes) -> Iterator[Callable[[], None]]:
    """One connection that is kept, and no more than a socket's work on this side."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    whole = head.encode() + body
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def post() -> None:
            connection.sendall(whole)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):  # 204 has no body
                answer += connection.recv(4096)
            assert b" 204 " in answer[:20], answer

        post()
        yield post
