"""Bare views that parse the same JSON and answer 204, and the endpoint, for real servers."""

from __future__ import annotations

import json
from typing import Any

import dispatchers
from dispatchers.http import PATH, Endpoint, EndpointSettings, asgi_app, wsgi_app

SECRET = "a-secret-for-the-benchmark"


@dispatchers.task(name="benchmarks.sync")
def sync_task(number: int, text: str) -> None: ...


@dispatchers.task(name="benchmarks.async")
async def async_task(number: int, text: str) -> None: ...


def _endpoint() -> Endpoint:
    return Endpoint(EndpointSettings(worker=True, secrets=(SECRET,)))


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    assert scope["path"] == PATH
    json.loads(body)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def bare_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    assert environ["PATH_INFO"] == PATH
    json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    start_response("204 No Content", [])
    return [b""]


endpoint_asgi = asgi_app(_endpoint())
endpoint_wsgi = wsgi_app(_endpoint())
