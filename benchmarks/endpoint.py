"""The worker's HTTP endpoint over bare views, under the same real servers."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

from dispatchers._models.envelope import encode
from dispatchers.http import PATH, Endpoint
from dispatchers.http._request import Request
from dispatchers.testing.endpoint import Issuer, Scene
from dispatchers.testing.journal import Journal

from ._endpoint_server import SECRET, async_task, sync_task
from ._measure import Figure, interleaved, once, ratio

ROUNDS, EACH = 40, 100
SERVERS = {
    "uvicorn": ("uvicorn", "--no-access-log", "--log-level", "warning", "--lifespan", "off",
                "--fd", "{fd}"),
    "gunicorn": ("gunicorn", "-k", "gthread", "--threads", "4",
                 "--keep-alive", "600", "--no-control-socket", "--log-level", "warning",
                 "-b", "fd://{fd}"),
}  # fmt: skip


def endpoint() -> Iterator[Figure]:
    with contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(_served(name, server))
            for name, server in (
                ("bare_asgi", "uvicorn"),
                ("endpoint_asgi", "uvicorn"),
                ("bare_wsgi", "gunicorn"),
                ("endpoint_wsgi", "gunicorn"),
            )
        }
        posts = {
            (name, task.name): stack.enter_context(_client(port, encode(task.request(1, "x"))))
            for name, port in urls.items()
            for task in (sync_task, async_task)
        }
        bare, ours_async, ours_sync = interleaved(
            posts["bare_asgi", sync_task.name],
            posts["endpoint_asgi", async_task.name],
            posts["endpoint_asgi", sync_task.name],
            rounds=ROUNDS,
            each=EACH,
        )
        yield ratio(
            "endpoint, ASGI under uvicorn, async task, over a bare view", 1.5, ours_async, bare
        )
        yield ratio("the same, sync task (on a thread)", 1.5, ours_sync, bare)
        bare, ours = interleaved(
            posts["bare_wsgi", sync_task.name],
            posts["endpoint_wsgi", sync_task.name],
            rounds=ROUNDS,
            each=EACH,
        )
        yield ratio("endpoint, WSGI under gunicorn, sync task, over a bare view", 1.5, ours, bare)
    yield _oidc()


def _oidc() -> Figure:
    with Issuer() as issuer:
        scene = Scene(issuer, Journal("/nowhere"))
        served = Endpoint(scene.settings())
        headers = dict(scene.headers(issuer.token()))
        call = Request("POST", PATH, {k.lower(): v for k, v in headers.items()}, b"")
        oidc = served._parts.verifiers[-1]
        assert oidc.verify(call).granted
        times = sorted(once(lambda: oidc.verify(call), 200) for _ in range(15))
    milliseconds = times[len(times) // 2] * 1e3
    return Figure(
        "an OIDC token verified, key cached", 0.3, milliseconds, f"{milliseconds:.3f} ms", " ms"
    )


@contextlib.contextmanager
def _served(name: str, server: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        options = [each.format(fd=fd) for each in SERVERS[server]]
        command = [sys.executable, "-m", *options, f"benchmarks._endpoint_server:{name}"]
        with subprocess.Popen(command, pass_fds=[fd]) as process:
            try:
                yield listener.getsockname()[1]
            finally:
                process.terminate()


@contextlib.contextmanager
def _client(port: int, body: bytes) -> Iterator[Callable[[], None]]:
    """One connection that is kept, and no more than a socket's work on this side."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    whole = head.encode() + body
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def post() -> None:
            connection.sendall(whole)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):  # 204 has no body
                answer += (part := connection.recv(4096))
                assert part, "the server hung up"
            assert b" 204 " in answer[:20], answer

        post()
        yield post
