"""The worker's endpoint as views, one for WSGI and one for ASGI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from dispatchers import Outcome, Reason
from dispatchers.http import Answer, Endpoint, Push, environ_headers, read_limited

from ._connections import after_rollback, shared

__all__ = ["arelay", "arun", "asweep", "endpoint", "relay", "run", "sweep"]

V = TypeVar("V", bound=Callable[..., Any])
CHUNK = 64 * 1024
KEPT = frozenset({Reason.SUCCEEDED, Reason.DUPLICATE})
"""Ends of a run after which its writes stay."""
CUT_SHORT = Answer(400, (("Content-Type", "application/json"),), b'{"error":"incomplete body"}')

_served: list[Endpoint] = []


class _Endpoint(Endpoint):
    """The endpoint with `ATOMIC_REQUESTS` around each run: a failed one leaves nothing behind.

    Not around the request: claims and dead letters are kept whatever becomes of the run.
    """

    def run(self, push: Push) -> Outcome:
        """Run one envelope in a transaction of each database that has `ATOMIC_REQUESTS`."""
        if not (aliases := _atomic_databases()):
            return super().run(push)
        later = list[Callable[[], None]]()
        token = after_rollback.set(later)
        try:
            outcome = self._run_in_transactions(push, aliases)
        finally:
            after_rollback.reset(token)
        for each in later:
            each()
        return outcome

    def _run_in_transactions(self, push: Push, aliases: list[str]) -> Outcome:
        with ExitStack() as stack:
            for alias in aliases:
                stack.enter_context(transaction.atomic(using=alias))
            outcome = super().run(push)
            # A failed run raises nothing here, so that `atomic` alone would commit its writes.
            for alias in aliases if outcome.reason not in KEPT else ():
                transaction.set_rollback(True, using=alias)
            return outcome

    async def arun(self, push: Push) -> Outcome:
        """Run one envelope; in transactions on a thread, as they cannot be held by a loop."""
        if not _atomic_databases():
            return await super().arun(push)
        return await sync_to_async(self._run_on_thread, thread_sensitive=False)(push)

    def _run_on_thread(self, push: Push) -> Outcome:
        try:
            return self.run(push)
        finally:
            connections.close_all()  # of a thread that no request looks after


def _atomic_databases() -> list[str]:
    return [alias for alias, each in connections.settings.items() if each.get("ATOMIC_REQUESTS")]


def endpoint() -> Endpoint:
    """Return the endpoint of this process, made again after its configuration has changed.

    Raises:
        ConfigurationError: Its settings cannot work.
    """
    if not _served or not _served[0].is_current:
        _served[:] = [_Endpoint()]
    return _served[0]


def _exempt(view: V) -> V:
    """Take a view out of what Django does for people's browsers: logins, forms, transactions."""
    # Each database by name: without one, Django exempts from the transactions of `default` only.
    for alias in connections.settings:
        view = transaction.non_atomic_requests(using=alias)(view)
    return csrf_exempt(login_not_required(view))


@_exempt
def run(request: HttpRequest) -> HttpResponse:
    """Run the work that was pushed: under WSGI."""
    return _handled(request, endpoint().path)


@_exempt
def sweep(request: HttpRequest) -> HttpResponse:
    """Wake executions of workflows that want a turn: under WSGI, for a scheduler."""
    return _handled(request, endpoint().sweep_path)


@_exempt
def relay(request: HttpRequest) -> HttpResponse:
    """Hand over what dispatchers hold in stores: under WSGI, for a scheduler."""
    return _handled(request, endpoint().relay_path)


@_exempt
async def arun(request: HttpRequest) -> HttpResponse:
    """Run the work that was pushed: under ASGI, where sync handlers run on threads."""
    return await _ahandled(request, endpoint().path)


@_exempt
async def asweep(request: HttpRequest) -> HttpResponse:
    """Wake executions of workflows that want a turn: under ASGI."""
    return await _ahandled(request, endpoint().sweep_path)


@_exempt
async def arelay(request: HttpRequest) -> HttpResponse:
    """Hand over what dispatchers hold in stores: under ASGI."""
    return await _ahandled(request, endpoint().relay_path)


def _handled(request: HttpRequest, path: str) -> HttpResponse:
    served = endpoint()
    if (body := _body(request, served.max_body)) is None:
        return _response(CUT_SHORT)
    headers = environ_headers(request.META)
    with shared():  # Django looks after a request's connections
        return _response(served.handle(request.method or "", path, headers, body))


async def _ahandled(request: HttpRequest, path: str) -> HttpResponse:
    served = endpoint()
    if (body := _body(request, served.max_body)) is None:
        return _response(CUT_SHORT)
    headers = environ_headers(request.META)
    return _response(await served.ahandle(request.method or "", path, headers, body))


def _body(request: HttpRequest, limit: int) -> bytes | None:
    """Read the body, no further than needed; None if the client went away.

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
