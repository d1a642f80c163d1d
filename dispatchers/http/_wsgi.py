"""The endpoint as a plain WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from dispatchers.http._request import environ_headers, read_limited

from ._endpoint import Endpoint
from ._settings import EndpointSettings

__all__ = ["WSGIApp", "wsgi_app"]

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
CHUNK = 64 * 1024
REASONS = {each.value: f"{each.value} {each.phrase}" for each in HTTPStatus}


def wsgi_app(endpoint: Endpoint | EndpointSettings | None = None) -> WSGIApp:
    """A WSGI application that is nothing but the endpoint.

    Args:
        endpoint: The endpoint or its settings; None reads the configuration.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    served = endpoint if isinstance(endpoint, Endpoint) else Endpoint(endpoint)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], _path(environ, served)
        headers = environ_headers(environ)
        answer = served.refuse(method, path, headers)
        if answer is None:
            body = read_limited(_chunks(environ, served.max_body), served.max_body)
            answer = served.handle(method, path, headers, body)
        length = [("Content-Length", str(len(answer.body)))] if answer.body else []
        start_response(REASONS[answer.status], [*answer.headers, *length])
        return [answer.body]

    return app


def _path(environ: dict[str, Any], served: Endpoint) -> str:
    """Return the request's path, below a mount or whole; WSGI has its bytes as Latin-1."""
    mounted_at = str(environ.get("SCRIPT_NAME", ""))
    return served.path_within(f"{mounted_at}{environ.get('PATH_INFO', '')}", mounted_at)


def _chunks(environ: dict[str, Any], limit: int) -> Iterator[bytes]:
    """Yield the body's parts; without a length only where the server ends the input."""
    stream = environ["wsgi.input"]
    text = environ.get("CONTENT_LENGTH") or ""
    if text.isascii() and text.isdigit():
        left = min(int(text), limit + 1)
    else:
        # Without a length, reading a keep-alive socket to its end would wait for ever.
        left = limit + 1 if environ.get("wsgi.input_terminated") else 0
    while left > 0:
        chunk = stream.read(min(CHUNK, left))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
