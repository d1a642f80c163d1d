"""The worker's endpoint through Django, over a bare view that parses the same JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from dispatchers import override, task
from dispatchers.http import PATH, EndpointSettings
from dispatchers.testing import RecordingDispatcher

from ._measure import Figure, interleaved, ratio

SECRET = "s" * 32
BARE = "/bare"
HEADERS = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}


@task(name="benchmarks.django")
def small(number: int, text: str) -> None:
    pass


@task(name="benchmarks.django_async")
async def asmall(number: int, text: str) -> None:
    pass


def endpoint() -> Iterator[Figure]:
    """Both servers' ways into Django, without their sockets."""
    from . import django_peer  # noqa: F401 - sets Django up
    from .django_views import AsyncUrls, Urls

    from django.test import override_settings  # isort: skip - wants Django set up

    from dispatchers_django import _connections, views

    _connections.install()
    views._served[:] = [views._Endpoint(EndpointSettings(worker=True, secrets=(SECRET,)))]
    for name, urls, work, call in (
        ("WSGI", Urls, small, under_wsgi),
        ("ASGI, async task", AsyncUrls, asmall, under_asgi),
        ("ASGI, sync task", AsyncUrls, small, under_asgi),
    ):
        body = envelope(work)
        with override_settings(ROOT_URLCONF=urls):
            ours, bare = call(body)
        yield ratio(f"django: endpoint over a bare view, {name}", 1.5, ours, bare)


def envelope(work: Any) -> bytes:
    """What a queue pushes."""
    with override(default=(recording := RecordingDispatcher())):
        work.dispatch(7, "x" * 20)
    return recording.dispatched[0].body


def under_wsgi(body: bytes) -> list[float]:
    from django.core.handlers.wsgi import WSGIHandler

    handler: Any = WSGIHandler()

    def pushing(path: str) -> Callable[[], None]:
        def push() -> None:
            said: list[str] = []
            environ = {
                "REQUEST_METHOD": "POST",
                "PATH_INFO": path,
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "CONTENT_TYPE": HEADERS["Content-Type"],
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_AUTHORIZATION": HEADERS["Authorization"],
                "wsgi.input": BytesIO(body),
                "wsgi.url_scheme": "http",
            }
            response = handler(environ, lambda status, *_: said.append(status))
            response.close()
            assert said == ["204 No Content"]

        return push

    return interleaved(pushing(PATH), pushing(BARE), rounds=60, each=100)


def under_asgi(body: bytes) -> list[float]:
    from django.core.handlers.asgi import ASGIHandler

    handler: Any = ASGIHandler()
    headers = [
        *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
        (b"content-length", b"%d" % len(body)),
    ]

    async def push(path: str) -> None:
        said: list[Any] = []
        sent = asyncio.Event()

        async def receive() -> Any:
            if not sent.is_set():
                sent.set()
                return {"type": "http.request", "body": body}
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await handler({**scope, "query_string": b"", "root_path": ""}, receive, send)
        assert said[0]["status"] == 204

    with asyncio.Runner() as runner:

        def pushing(path: str) -> Callable[[], None]:
            return lambda: runner.run(push(path))

        return interleaved(pushing(PATH), pushing(BARE), rounds=60, each=50)
