"""A process whose every dispatch would be rejected does not start; one that ends closes all."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from dispatchers_fastapi import dispatcher, lifespan
from fastapi import FastAPI, Request

from dispatchers import ConfigurationError, Dispatcher, configure, get_dispatcher, override, task
from dispatchers._config.api import reload
from dispatchers.testing import RecordingDispatcher


@task(name="fastapi.ping")
def ping() -> None:
    """Nothing."""


def runs(started: Any) -> None:
    """Start and end an application."""

    async def run() -> None:
        async with started(FastAPI()):
            pass

    asyncio.run(run())


def target(**aliases: Any) -> dict[str, Any]:
    return {"targets": {"t": aliases}}


@pytest.fixture
def misconfigured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file with two mistakes, as a deployment has it."""
    (tmp_path / "dispatchers.toml").write_text(
        '[targets.t]\none = { backend = "sqlite", pth = "x" }\ntwo = "selery"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPATCHERS_TARGET", "t")
    reload()
    yield
    monkeypatch.undo()
    reload()


def test_it_raises_every_problem_there_is(misconfigured):
    """C12: before the first request, not with it."""
    with pytest.raises(ConfigurationError) as raised:
        runs(lifespan())

    assert "did you mean 'path'?" in str(raised.value)
    assert "did you mean 'celery'?" in str(raised.value)


def test_a_backend_that_is_down_is_no_reason_not_to_start():
    """It may come back; unless the application says that it wants contact."""
    down = {"backend": "celery", "url": "redis://127.0.0.1:9/0", "deadline": 1.0}

    with override(default=down):
        runs(lifespan())
        with pytest.raises(ConfigurationError, match="could not be reached"):
            runs(lifespan(contact=True))


def test_it_closes_what_was_built():
    """Work in memory gets its time; the next use builds anew."""
    configure(target(default={"backend": "thread"}), target="t")
    before = get_dispatcher()
    assert ping.dispatch().ok

    runs(lifespan())

    assert get_dispatcher() is not before
    assert before.dispatch(ping.request()).error.category == "closed"


@pytest.mark.parametrize("kind", ["context manager", "generator"])
def test_it_goes_around_the_application_s_own(serve, kind):
    """Which may dispatch at its start and at its end, and whose state is kept."""
    configure(target(default={"backend": "thread"}), target="t")
    said: list[Any] = []

    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        said.append(ping.dispatch().status)
        yield {"database": "connected"}
        said.append(ping.dispatch().status)

    app = FastAPI(lifespan=lifespan(asynccontextmanager(own) if kind == "context manager" else own))

    @app.get("/")
    async def route(request: Request) -> str:
        return request.state.database

    assert serve(app).get("/").json() == "connected"
    serve.stop()
    serve.join()

    assert said == ["accepted", "accepted"]


def test_it_decorates_as_well():
    """One line above a lifespan that is there already."""
    said = []

    @lifespan
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        said.append("started")
        yield
        said.append("ended")

    runs(own)

    assert said == ["started", "ended"]


def test_it_closes_when_the_application_s_own_end_raises():
    """And lets the exception through."""
    configure(target(default={"backend": "thread"}), target="t")
    before = get_dispatcher()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        yield
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError, match="the database is gone"):
        runs(lifespan(own))

    assert before.dispatch(ping.request()).error.category == "closed"


def test_a_dependency_gives_the_dispatcher_of_an_alias(serve, gated, caplog):
    """The same object as `get_dispatcher`; an alias that is not there is an error of the server."""
    app = FastAPI()

    @app.get("/tracking")
    async def tracking(to: Annotated[Dispatcher, dispatcher("tracking")]) -> bool:
        return ping.options(dispatcher=to).dispatch().ok and to is gated

    @app.get("/default")
    async def default(to: Annotated[Dispatcher, dispatcher()]) -> str:
        return to.alias

    @app.get("/typo")
    async def typo(to: Annotated[Dispatcher, dispatcher("trakking")]) -> str:
        return to.alias

    with override(tracking=gated, default="null"):
        client = serve(app)
        answers = [client.get(f"/{path}") for path in ("tracking", "default", "typo")]

    assert [each.status_code for each in answers] == [200, 200, 500]
    assert [each.json() for each in answers[:2]] == [True, "default"]


def test_a_test_may_put_another_dispatcher_in_its_place(serve):
    """The testing kit's recorder goes before what is configured."""
    configure(target(tracking={"backend": "sqlite", "path": "/nowhere/queue"}), target="t")
    app = FastAPI()

    @app.get("/")
    async def route(to: Annotated[Dispatcher, dispatcher("tracking")]) -> bool:
        return ping.options(dispatcher=to).dispatch().ok

    with RecordingDispatcher.installed() as dispatched:
        assert serve(app).get("/").json() is True
        dispatched.assert_one(ping)
