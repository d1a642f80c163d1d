"""The worker's endpoint as views, one for WSGI and one for ASGI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from dispatchers.http import Answer, Endpoint, environ_headers, read_limited

from ._connections import shared

__all__ = ["arun", "endpoint", "run"]

CHUNK = 64 * 1024
CUT_SHORT = Answer(400, (("Content-Type", "application/json"),), b'{"error":"incomplete body"}')

_served: list[Endpoint] = []


def endpoint() -> Endpoint:
    """The endpoint of this process, made once and again after its settings were overridden.

    Raises:
        ConfigurationError: Its settings cannot work.
    """
    if not _served:
        _served.append(Endpoint())
    return _served[0]


def forget(*, setting: str, **_: object) -> None:
    """Make it anew when a test overrides settings."""
    if setting.startswith("DISPATCHERS"):
        _served.clear()


setting_changed.connect(forget)


@csrf_exempt
def run(request: HttpRequest) -> HttpResponse:
    """Run what was pushed: under WSGI."""
    served = endpoint()
    if (body := _body(request, served.max_body)) is None:
        return _response(CUT_SHORT)
    headers = environ_headers(request.META)
    with shared():  # Django looks after a request's connections
        return _response(served.handle(request.method or "", served.path, headers, body))


@csrf_exempt
async def arun(request: HttpRequest) -> HttpResponse:
    """Run what was pushed: under ASGI, where sync handlers run on threads."""
    served = endpoint()
    if (body := _body(request, served.max_body)) is None:
        return _response(CUT_SHORT)
    headers = environ_headers(request.META)
    return _response(await served.ahandle(request.method or "", served.path, headers, body))


def _body(request: HttpRequest, limit: int) -> bytes | None:
    """The body, read no further than needed; None if the client went away in the midst of it.

    Under ASGI Django has read it already, into memory or a temporary file.
    """
    try:
        return read_limited(_chunks(request), limit)
    except UnreadablePostError:
        return None


def _chunks(request: Any) -> Iterator[bytes]:
    stream = request
    environ = getattr(request, "environ", {})
    if environ.get("wsgi.input_terminated") and not environ.get("CONTENT_LENGTH"):
        stream = environ["wsgi.input"]  # chunked: Django itself reads nothing without a length
    while chunk := stream.read(CHUNK):
        yield chunk


def _response(answer: Answer) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
