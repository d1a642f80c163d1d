"""`Outbox` in coroutines: asyncpg, psycopg and SQLAlchemy (F5, F6, F10)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any, NamedTuple

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from dispatchers import DispatchResponse
from dispatchers.outbox import Outbox, create_tables
from dispatchers.testing import processes

from ..timing import within  # noqa: TID252 - as for the other cases
from .conftest import Place, configured, note, sqlalchemy_url


class Open(NamedTuple):
    """An open transaction."""

    handle: Any
    savepoint: Callable[[], AbstractAsyncContextManager[object]]


@asynccontextmanager
async def by_asyncpg(place: Place) -> AsyncIterator[Open]:
    url, _, schema = place.url.partition("?options=-csearch_path%3D")
    connection = await asyncpg.connect(url, server_settings={"search_path": schema})
    try:
        async with connection.transaction():
            yield Open(connection, connection.transaction)
    finally:
        await connection.close()


@asynccontextmanager
async def by_psycopg(place: Place) -> AsyncIterator[Open]:
    async with await psycopg.AsyncConnection.connect(place.url) as connection:
        yield Open(connection, connection.transaction)


def engine_of(place: Place, driver: str) -> Any:
    if driver != "asyncpg":
        return create_async_engine(sqlalchemy_url(place, driver), poolclass=NullPool)
    url, _, schema = sqlalchemy_url(place, driver).partition("?options=-csearch_path%3D")
    given = {"server_settings": {"search_path": schema}}
    return create_async_engine(url, poolclass=NullPool, connect_args=given)


@asynccontextmanager
async def by_session(place: Place, driver: str) -> AsyncIterator[Open]:
    engine = engine_of(place, driver)
    async with AsyncSession(engine) as session, session.begin():
        await session.connection()  # else a deadline may cut it off as it begins, and closes it
        yield Open(session, session.begin_nested)
    await engine.dispose()


@asynccontextmanager
async def by_connection(place: Place, driver: str) -> AsyncIterator[Open]:
    engine = engine_of(place, driver)
    async with engine.begin() as connection:
        yield Open(connection, connection.begin_nested)
    await engine.dispose()


WAYS: dict[str, tuple[str, Callable[[Place], AbstractAsyncContextManager[Open]]]] = {
    "asyncpg": ("postgres", by_asyncpg),
    "psycopg": ("postgres", by_psycopg),
    "session-asyncpg": ("postgres", lambda place: by_session(place, "asyncpg")),
    "session-psycopg": ("postgres", lambda place: by_session(place, "psycopg")),
    "session-aiosqlite": ("sqlite", lambda place: by_session(place, "+aiosqlite")),
    "connection-asyncpg": ("postgres", lambda place: by_connection(place, "asyncpg")),
}


class Way(NamedTuple):
    """A way to use a database, and the database."""

    place: Place
    begin: Callable[[], AbstractAsyncContextManager[Open]]


def made(request: Any) -> Way:
    kind, begin = WAYS[request.param]
    place = request.getfixturevalue(f"{kind}_place")
    return Way(place, lambda: begin(place))


@pytest.fixture(params=WAYS)
def way(request) -> Way:
    """Each way in turn."""
    return made(request)


@pytest.fixture(params=[name for name in WAYS if name.startswith("session")])
def session_way(request) -> Way:
    """Each way that knows of its commits."""
    return made(request)


class Undone(Exception):
    """Ends a transaction."""


def test_the_transaction_decides(way, broker):
    """F6: of a savepoint, too."""

    async def work() -> list[DispatchResponse]:
        async with way.begin() as opened:
            send = note.options(dispatcher=Outbox(opened.handle))
            found = [await send.adispatch(n=1)]
            try:
                async with opened.savepoint():
                    found.append(await send.adispatch(n=2))
                    raise Undone
            except Undone:
                pass
            many = await Outbox(opened.handle).adispatch_many([note.request(n=n) for n in (3, 4)])
        try:
            async with way.begin() as opened:
                await note.options(dispatcher=Outbox(opened.handle)).adispatch(n=5)
                raise Undone
        except Undone:
            return [*found, *many]

    with configured(way.place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        answers = asyncio.run(work())
        outbox.forwarder.run(lambda: False, drain=True)

    assert {(each.status.value, each.durable) for each in answers} == {("deferred", False)}
    assert [each.payload["n"] for each in broker.requests] == [1, 3, 4]


def test_what_is_asynchronous_is_awaited(way, broker):
    """C1: `dispatch` says so, and does nothing."""

    async def work() -> DispatchResponse:
        async with way.begin() as opened:
            return note.options(dispatcher=Outbox(opened.handle)).dispatch(n=1)

    with configured(way.place, broker):
        response = asyncio.run(work())

    assert (response.status, response.error.category) == ("rejected", "unsupported")
    assert "await .adispatch(...)" in response.error.message
    assert way.place.count() == 0


def test_after_the_commit_this_process_hands_over(session_way, broker):
    """F10: in the background; after a rollback it says that nothing is to be done."""
    told: list[DispatchResponse] = []

    async def work() -> None:
        async with session_way.begin() as opened:
            send = note.options(dispatcher=Outbox(opened.handle, on_result=told.append))
            await send.adispatch(n=1)
        try:
            async with session_way.begin() as opened:
                send = note.options(dispatcher=Outbox(opened.handle, on_result=told.append))
                await send.adispatch(n=2)
                raise Undone
        except Undone:
            pass

    with configured(session_way.place, broker):
        asyncio.run(work())
        processes.wait_until(lambda: len(told) == 2, "not both are told")

    assert {(each.request.payload["n"], each.status.value) for each in told} == {
        (1, "accepted"),
        (2, "rejected"),
    }


def test_a_sync_connection_serves_coroutines(sqlite_place, broker):
    """It is used where it was made: on the event loop's thread."""
    connection = sqlite_place.connect()

    async def work() -> DispatchResponse:
        return await note.options(dispatcher=Outbox(connection)).adispatch(n=1)

    with configured(sqlite_place, broker):
        assert asyncio.run(work()).ok
    connection.commit()
    connection.close()

    assert sqlite_place.count() == 1


def test_without_a_transaction_asyncpg_commits_the_row(postgres_place, broker):
    """F5: then it is durable at once."""

    async def work() -> DispatchResponse:
        url, _, schema = postgres_place.url.partition("?options=-csearch_path%3D")
        connection = await asyncpg.connect(url, server_settings={"search_path": schema})
        try:
            return await note.options(dispatcher=Outbox(connection)).adispatch(n=1)
        finally:
            await connection.close()

    with configured(postgres_place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        assert asyncio.run(work()).durable

    assert postgres_place.count() == 1


@pytest.mark.parametrize("name", ["asyncpg", "psycopg", "session-asyncpg"])
def test_a_lock_that_is_held_costs_the_deadline(postgres_place, broker, name):
    """C2: the statement is cancelled."""
    holder = postgres_place.connect()
    holder.execute("LOCK TABLE dispatchers_outbox IN ACCESS EXCLUSIVE MODE")

    async def work() -> None:
        try:
            async with WAYS[name][1](postgres_place) as opened:
                send = note.options(dispatcher=Outbox(opened.handle), deadline=0.5)
                with within(0.75):
                    response = await send.adispatch(n=1)
                assert response.error.category == "timeout"
                holder.rollback()
                raise Undone
        except Undone:
            pass

    with closing(holder), configured(postgres_place, broker):
        asyncio.run(work())

    assert postgres_place.count() == 0


def test_tables_are_made_by_an_async_engine(tmp_path):
    """By `run_sync`."""
    sqlite3.connect(tmp_path / "new.db").close()

    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
        async with engine.begin() as connection:
            await connection.run_sync(create_tables)
        await engine.dispose()

    asyncio.run(work())
    with sqlite3.connect(tmp_path / "new.db") as connection:
        assert connection.execute("SELECT * FROM dispatchers_outbox").fetchall() == []
    connection.close()
