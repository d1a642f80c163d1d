"""Work that is handed over once the response was sent: never before, never twice, never unsaid."""

import socket
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from dispatchers_fastapi import after_response
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from websockets.sync.client import connect

from dispatchers import Dispatcher, configure, hooks, override, task


@task(name="fastapi.note")
def note(number: int) -> None:
    """Noted."""


def later(number: int, dispatcher: Dispatcher) -> str:
    """What a dispatch says at once."""
    return note.options(dispatcher=dispatcher).dispatch(number).status.value


@pytest.fixture
def app(gated: Any) -> Iterator[FastAPI]:
    """An application whose default dispatcher is held up until the gate opens."""
    with override(default=gated):
        yield FastAPI()


def test_the_response_does_not_wait_for_the_queue(app, gated, told, serve):
    """It is there while the dispatch is still under way; the final response is reported."""

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> str:
        return later(1, held)

    client = serve(app)
    gated.gate.clear()

    said = client.get("/").json()
    before = list(gated.asked), list(told.responses)
    gated.gate.set()

    assert said == "deferred"
    assert before == ([], [])
    assert told.wait() == ["accepted"]
    assert gated.asked == ["fastapi.note"]


def test_a_route_that_is_no_coroutine_does_as_well(app, told, serve):
    """FastAPI runs it on a thread."""

    @app.get("/")
    def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> list[str]:
        return [later(number, held) for number in range(3)]

    assert serve(app).get("/").json() == ["deferred"] * 3
    assert told.wait(3) == ["accepted"] * 3
    assert [each.request.payload["number"] for each in told.responses] == [0, 1, 2]


def test_a_stream_is_sent_to_its_end_first(app, gated, told, serve):
    """Sent is sent, not begun."""
    seen = []

    @app.get("/")
    async def route(
        held: Annotated[Dispatcher, after_response(on_result=told)],
    ) -> StreamingResponse:
        later(1, held)

        def parts() -> Iterator[str]:
            for _ in range(3):
                seen.append(list(gated.asked))
                yield "part"

        return StreamingResponse(parts())

    assert serve(app).get("/").text == "partpartpart"
    assert told.wait() == ["accepted"]
    assert seen == [[], [], []]


@pytest.mark.parametrize("error", [HTTPException(409, "taken"), RuntimeError("broken")])
def test_the_work_of_a_route_that_raises_is_dropped_and_reported(app, gated, told, serve, error):
    """As with a transaction that is rolled back; somebody was told `deferred`, so it is said."""

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> None:
        later(1, held)
        raise error

    answer = serve(app).get("/")

    assert answer.status_code == (409 if isinstance(error, HTTPException) else 500)
    assert told.wait() == ["rejected"]
    assert told.responses[0].error.category == "closed"
    assert gated.asked == []


def test_a_result_that_cannot_be_sent_is_a_route_that_failed(app, gated, told, serve):
    """FastAPI makes the response of what the route returned, and that may raise."""

    @app.get("/", response_model=int)
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> Any:
        later(1, held)
        return "no number"

    assert serve(app).get("/").status_code == 500
    assert told.wait() == ["rejected"]
    assert gated.asked == []


def test_other_work_after_the_response_does_not_take_it_along(app, told, serve):
    """A background task that raises ends the others, but not this."""

    def fail() -> None:
        raise RuntimeError("a background task failed")

    @app.get("/")
    async def route(
        background: BackgroundTasks, held: Annotated[Dispatcher, after_response(on_result=told)]
    ) -> str:
        background.add_task(fail)
        return later(1, held)

    assert serve(app).get("/").json() == "deferred"
    assert told.wait() == ["accepted"]


def test_a_response_with_a_background_of_its_own_keeps_both(app, told, serve):
    """FastAPI leaves out injected background tasks then; this does not go that way."""
    ran: list[int] = []

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> Response:
        later(1, held)
        return JSONResponse("yes", background=BackgroundTask(ran.append, 1))

    assert serve(app).get("/").json() == "yes"
    assert told.wait() == ["accepted"]
    assert ran == [1]


def test_a_client_that_is_gone_changes_nothing(app, gated, told, serve):
    """What the route did is done; whether somebody reads the answer is another matter."""

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> Response:
        later(1, held)
        return StreamingResponse(iter(["x" * 65536] * 512))

    url = serve(app).base_url
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        client.recv(1000)

    assert told.wait() == ["accepted"]


def test_middleware_around_the_response_is_no_obstacle(app, told, serve):
    """Starlette's own kind reads the response in a task group that it cancels."""

    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> str:
        return later(1, held)

    assert serve(app).get("/").json() == "deferred"
    assert told.wait() == ["accepted"]


def test_a_websocket_dispatches_when_it_ends(app, gated, told, serve):
    """Its response is the conversation."""

    @app.websocket("/")
    async def route(
        socket: WebSocket, held: Annotated[Dispatcher, after_response(on_result=told)]
    ) -> None:
        await socket.accept()
        await socket.send_text(later(1, held))
        await socket.receive_text()
        await socket.close()

    url = serve(app).base_url
    with connect(f"ws://{url.host}:{url.port}/") as client:
        said = client.recv()
        before = list(gated.asked)
        client.send("bye")

    assert (said, before) == ("deferred", [])
    assert told.wait() == ["accepted"]


def test_what_does_not_fit_is_refused_while_somebody_looks(app, told, serve):
    """C7: encoded at once."""

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> list[str]:
        wrong = note.options(dispatcher=held).dispatch("one")  # type: ignore[arg-type]
        lacking = note.options(dispatcher=held, priority=3).dispatch(1)
        return [f"{each.status} {each.error and each.error.category}" for each in (wrong, lacking)]

    assert serve(app).get("/").json() == ["rejected invalid", "rejected unsupported"]
    assert told.responses == []


def test_after_the_response_it_takes_nothing_more(app, gated, told, serve):
    """A dispatcher that somebody kept would hold work for ever."""
    kept: list[Dispatcher] = []

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> str:
        kept.append(held)
        return later(1, held)

    serve(app).get("/")
    told.wait()

    answer = note.options(dispatcher=kept[0]).dispatch(2)

    assert answer.error is not None
    assert (answer.status, answer.error.category) == ("rejected", "closed")
    assert gated.asked == ["fastapi.note"]


def test_a_queue_that_is_down_is_reported_and_not_raised(told, serve, caplog):
    """C1: the request is long answered."""

    class Down(Exception):
        """No connection."""

    app = FastAPI()

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response("down", on_result=told)]) -> str:
        return later(1, held)

    with override() as _:
        configure(
            {"targets": {"t": {"down": {"backend": "sqlite", "path": "/nowhere/queue"}}}},
            target="t",
        )
        assert serve(app).get("/").json() == "deferred"
        assert told.wait() == ["rejected"]

    assert told.responses[0].error.category != "internal"


def test_an_async_callback_is_awaited(app, told, serve):
    """It may write to the same database as the route."""

    async def tell(response: Any) -> None:
        told(response)

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=tell)]) -> str:
        return later(1, held)

    serve(app).get("/")

    assert told.wait() == ["accepted"]


def test_hooks_see_the_request_as_it_is_made(app, told, serve):
    """What they stamp on it comes from the route's own surroundings, once."""
    seen: list[str] = []
    hooks.before_dispatch(lambda request: seen.append(request.task))

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> str:
        return later(1, held)

    serve(app).get("/")
    told.wait()

    assert seen == ["fastapi.note"]


def test_the_end_of_the_server_waits_for_it(app, gated, told, serve):
    """A request is over when its work was handed over, so that a graceful end loses none."""

    @app.get("/")
    async def route(held: Annotated[Dispatcher, after_response(on_result=told)]) -> str:
        return later(1, held)

    client = serve(app)
    gated.gate.clear()
    client.get("/")
    serve.stop()
    gated.gate.set()
    serve.join()

    assert [each.status for each in told.responses] == ["accepted"]
