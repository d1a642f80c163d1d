"""The endpoint as a plain ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from dispatchers.http._request import aread_limited, scope_headers
from dispatchers.http._responses import Answer

from ._endpoint import Endpoint
from ._settings import EndpointSettings

__all__ = ["ASGIApp", "asgi_app"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
START, BODY = "http.response.start", "http.response.body"
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def asgi_app(endpoint: Endpoint | EndpointSettings | None = None) -> ASGIApp:
    """An ASGI application that is nothing but the endpoint.

    Args:
        endpoint: The endpoint or its settings; None reads the configuration.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    served = endpoint if isinstance(endpoint, Endpoint) else Endpoint(endpoint)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _http(served, scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _http(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
    method, headers = scope["method"], scope_headers(scope)
    path = endpoint.path_within(scope["path"], scope.get("root_path") or "")
    # One message first: most bodies come whole in it, and need no second question.
    first = await receive()
    if first["type"] == "http.disconnect":
        return
    body = first.get("body", b"")
    if first.get("more_body", False):
        # Before the body is read: what its headers alone refuse costs no memory.
        if (refused := endpoint.refuse(method, path, headers)) is not None:
            await _answer(refused, send)
            return
        try:
            body = await aread_limited(_chunks(first, receive), endpoint.max_body)
        except ConnectionAbortedError:
            # Without an answer: there is no client left to read one.
            return
    await _answer(await endpoint.ahandle(method, path, headers, body), send)


async def _chunks(message: Message, receive: Receive) -> AsyncIterator[bytes]:
    """The body's parts.

    Raises:
        ConnectionAbortedError: The client went away: half an envelope is not an envelope.
    """
    while True:
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError("the client went away")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
        message = await receive()


async def _answer(answer: Answer, send: Send) -> None:
    status, headers, body = answer
    await send({"type": START, "status": status, "headers": [*_raw(headers, len(body))]})
    await send({"type": BODY, "body": body})


@lru_cache(maxsize=128)
def _raw(headers: tuple[tuple[str, str], ...], length: int) -> list[tuple[bytes, bytes]]:
    """As a server wants them; copied for each answer, as middleware may add to it."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return [*raw, (b"content-length", b"%d" % length)] if length else raw


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
