"""FastAPI: the worker's route, a lifespan that checks and closes, dispatchers as dependencies.

`pip install "dispatchers[fastapi]"`. See README.md beside this package.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dispatchers import (
    BaseDispatcher,
    ConfigurationError,
    DispatchRequest,
    DispatchResponse,
    ErrorCategory,
    RejectedError,
    check,
    close_all,
    get_dispatcher,
)
from dispatchers.held import HoldingDispatcher
from dispatchers.http import Endpoint, EndpointSettings, aread_limited, scope_headers

from ._description import described

__all__ = [
    "AfterResponse",
    "Lifespan",
    "after_response",
    "dispatcher",
    "lifespan",
    "worker_router",
]

State = Mapping[str, Any] | None
# Starlette's own type is a union of two lifespans, with state and without; only Any fits both.
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""The type of `FastAPI(lifespan=...)`."""
OnResult = Callable[[DispatchResponse], Awaitable[object] | object]
"""Called with the final response; on the event loop, so it must not block. May be async."""


# The worker's route.


def worker_router(
    settings: EndpointSettings | None = None,
    *,
    deploy: bool = False,
    include_in_schema: bool = False,
) -> APIRouter:
    """The route to which a queue delivers: `app.include_router(worker_router())`.

    On a process that is not a worker it answers 404.

    Args:
        settings: None reads `[endpoint]` of the configuration.

        deploy: Do not start with what strangers must not reach: no authentication, say.

        include_in_schema: Describe the route in the application's OpenAPI document.

    Raises:
        ConfigurationError: The settings cannot work; the message has every problem.
    """
    endpoint = Endpoint(settings)

    async def run(request: Request) -> Response:
        return await _answered(endpoint, request, endpoint.path)

    @asynccontextmanager
    async def checked(_: FastAPI) -> AsyncIterator[None]:
        errors = [each for each in endpoint.check(deploy=deploy) if each.severity == "error"]
        if errors:
            raise ConfigurationError("; ".join(each.message for each in errors))
        yield

    router = APIRouter(lifespan=checked)
    shown = described(endpoint.settings) if include_in_schema else {}
    router.add_api_route(
        endpoint.path, run, methods=["POST"], include_in_schema=include_in_schema, **shown
    )
    router.routes.append(Route(endpoint.path, _Otherwise(endpoint, endpoint.path)))
    for beside in (endpoint.sweep_path, endpoint.relay_path):
        router.routes.append(Route(beside, _Otherwise(endpoint, beside)))
    return router


async def _answered(endpoint: Endpoint, request: Request, path: str) -> Response:
    try:
        body = await aread_limited(request.stream(), endpoint.max_body)
    except ClientDisconnect:
        return Response(status_code=400)  # the client is gone, and half an envelope is none
    headers = scope_headers(request.scope)
    answer = await endpoint.ahandle(request.method, path, headers, body)
    return Response(answer.body, answer.status, dict(answer.headers))


class _Otherwise:
    """A path with every method: FastAPI's own answer would tell a worker from what is none."""

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        self._endpoint = endpoint
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = await _answered(self._endpoint, Request(scope, receive), self._path)
        await answered(scope, receive, send)


# The application's start and end.


def lifespan(
    own: Lifespan | Callable[[Any], AsyncIterator[State]] | None = None,
    *,
    contact: bool = False,
    timeout: float = 5.0,
) -> Lifespan:
    """Check the dispatchers before the application starts, and close them after it has ended.

    Args:
        own: The application's own lifespan, which runs inside; what it yields is kept.

        contact: Reach the backends as well, and do not start while one is down.

        timeout: Seconds that all dispatchers together get to finish what they hold.

    Raises:
        ConfigurationError: At start-up, with every problem there is.
    """
    inner = _nothing if own is None else _context_manager(own)

    @asynccontextmanager
    async def checked(app: FastAPI) -> AsyncIterator[State]:
        # On a thread: it imports modules and reaches backends, while the loop may serve others.
        await asyncio.to_thread(check, contact=contact)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, close_all, timeout)
            yield await stack.enter_async_context(inner(app))

    return checked


@asynccontextmanager
async def _nothing(_: FastAPI) -> AsyncIterator[State]:
    yield None


def _context_manager(own: Callable[[Any], Any]) -> Lifespan:
    """FastAPI takes a plain async generator function as well."""
    return asynccontextmanager(own) if inspect.isasyncgenfunction(own) else cast("Lifespan", own)


# Dispatchers as dependencies.


def dispatcher(alias: str = "default") -> Any:
    """A dependency that gives the dispatcher of an alias.

    ::

        Tracking = Annotated[Dispatcher, dispatcher("tracking")]

    Raises:
        ConfigurationError: In the request, if the alias is not configured.
    """

    async def given() -> BaseDispatcher:
        return get_dispatcher(alias)

    return Depends(given)


def after_response(alias: str = "default", *, on_result: OnResult | None = None) -> Any:
    """A dependency that gives a dispatcher for work to hand over once the response was sent.

    ::

        Later = Annotated[Dispatcher, after_response()]

        @app.post("/users")
        async def sign_up(user_id: int, later: Later) -> None:
            send_welcome.options(dispatcher=later).dispatch(user_id=user_id)

    A dispatch answers `DEFERRED`, or `REJECTED` at once where the work does not fit. Its final
    response goes to `on_result`, whatever happens: a route that raises has its work dropped, and
    reported as `REJECTED`. A client that is gone changes nothing.

    Args:
        alias: The dispatcher that gets the work.

        on_result: Called with each final response, on the event loop; may be async.
    """

    async def held() -> AsyncIterator[AfterResponse]:
        later = AfterResponse(get_dispatcher(alias), on_result)
        try:
            yield later
        finally:
            await later.end()

    async def given(
        later: Annotated[AfterResponse, Depends(held, scope="request")],
    ) -> AsyncIterator[AfterResponse]:
        yield later
        later.succeeded = True

    return Depends(given, scope="function")


class AfterResponse(HoldingDispatcher):
    """Holds the work of one request until its response was sent."""

    name = "after_response"
    contract = 1

    def __init__(self, to: BaseDispatcher, on_result: OnResult | None = None) -> None:
        super().__init__(to, on_result)
        self.succeeded = False
        self._lock = threading.Lock()
        self._requests: list[DispatchRequest] = []
        self._ended = False

    def _hold(self, request: DispatchRequest) -> None:
        with self._lock:  # routes that are not coroutines run on threads, and may start more
            if self._ended:
                raise RejectedError(
                    ErrorCategory.CLOSED, "the response was sent: dispatch directly"
                )
            self._requests.append(request)

    async def end(self) -> None:
        """Hand over what was held, or report it as dropped if the route raised."""
        with self._lock:
            # Under the lock, so that nothing is added after the list was taken.
            self._ended = True
        if self._requests and self.succeeded:
            await self.arelease(self._requests)
        elif self._requests:
            await self.adrop(self._requests, "the route raised, so its work was not dispatched")
