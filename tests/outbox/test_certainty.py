"""What an answer says of a row where its connection is lost, closed or refuses half of it (C3)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dispatchers import DispatchRequest
from dispatchers.outbox import Outbox
from dispatchers.outbox import _insert as insert
from dispatchers.testing import FaultProxy

from .conftest import Place, configured, note, sqlalchemy_url


@contextmanager
def behind_proxy(place: Place) -> Iterator[tuple[FaultProxy, str]]:
    address = urlsplit(place.url)
    port = address.port or 5432
    with FaultProxy(address.hostname or "127.0.0.1", port) as proxy:
        yield proxy, place.url.replace(f":{port}/", f":{proxy.port}/")


def sqlalchemy_engine(url: str, **options: Any) -> sa.Engine:
    pool: Any = {"poolclass": sa.NullPool}
    return sa.create_engine(sqlalchemy_url(Place("postgresql", url)), **pool, **options)


@contextmanager
def psycopg_connection(url: str, *, alone: bool) -> Iterator[Any]:
    connection = psycopg.connect(url, autocommit=alone)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def connection_of_sqlalchemy(url: str, *, alone: bool) -> Iterator[Any]:
    level = {"isolation_level": "AUTOCOMMIT"} if alone else {}
    with sqlalchemy_engine(url).connect().execution_options(**level) as connection:
        yield connection


@contextmanager
def session_of_sqlalchemy(url: str, *, alone: bool) -> Iterator[Any]:
    level = {"isolation_level": "AUTOCOMMIT"} if alone else {}
    with Session(sqlalchemy_engine(url, **level)) as session:
        yield session
        session.invalidate()


WAYS = [psycopg_connection, connection_of_sqlalchemy, session_of_sqlalchemy]


@pytest.mark.parametrize("alone", [True, False], ids=["autocommit", "transaction"])
@pytest.mark.parametrize("way", WAYS)
def test_a_row_whose_answer_is_lost_is_rejected_in_a_transaction_only(
    postgres_place, broker, way, alone
):
    """C3: what commits itself may be committed, and the caller must not take it for undone."""
    with configured(postgres_place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        with behind_proxy(postgres_place) as (proxy, url), way(url, alone=alone) as opened:
            send = note.options(dispatcher=Outbox(opened))
            first = send.dispatch(n=1)
            proxy.drop_reply()
            lost = send.dispatch(n=2)

    assert (first.status, first.durable) == ("deferred", alone)
    assert (lost.status, lost.error.category) == (
        "unknown" if alone else "rejected",
        "unavailable",
    )
    assert postgres_place.count() == (2 if alone else 0)


def test_of_a_connection_that_was_closed_nothing_is_unknown(postgres_place, broker):
    """C3: asyncpg says of one that is closed that it is in no transaction."""

    async def work() -> Any:
        url, _, schema = postgres_place.url.partition("?options=-csearch_path%3D")
        connection = await asyncpg.connect(url, server_settings={"search_path": schema})
        await connection.close()
        return await note.options(dispatcher=Outbox(connection)).adispatch(n=1)

    with configured(postgres_place, broker):
        response = asyncio.run(work())

    assert (response.status, response.error.category) == ("rejected", "unavailable")


def closed_connection(place: Place) -> Any:
    connection = place.connect()
    connection.close()
    return connection


def closed_connection_of_sqlalchemy(place: Place) -> Any:
    connection = sa.create_engine(sqlalchemy_url(place)).connect()
    connection.close()
    return connection


def session_without_engine(place: Place) -> Any:
    del place
    return Session()


UNUSABLE = [closed_connection, closed_connection_of_sqlalchemy, session_without_engine]


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_what_cannot_be_used_is_invalid_and_says_why(sqlite_place, broker, unusable):
    """C4: with the library's own words, and certainly nothing was written."""
    with configured(sqlite_place, broker):
        response = note.options(dispatcher=Outbox(unusable(sqlite_place))).dispatch(n=1)

    assert (response.status, response.error.category) == ("rejected", "invalid")
    assert "closed" in response.error.message or "bind" in response.error.message


def test_a_transaction_that_only_reads_refuses_the_row(place, broker):
    """C4: alike on all databases that have such transactions."""
    begin = {"sqlite": "PRAGMA query_only = ON", "postgresql": "SET TRANSACTION READ ONLY"}
    only_reads = begin.get(place.dialect, "SET SESSION TRANSACTION READ ONLY")
    engine = sa.create_engine(sqlalchemy_url(place), poolclass=sa.NullPool)
    with configured(place, broker), engine.connect() as connection:
        connection.exec_driver_sql(only_reads)
        if place.dialect == "mysql":
            connection.commit()  # it counts from the next transaction on
        response = note.options(dispatcher=Outbox(connection)).dispatch(n=1)

    category = "permission" if place.dialect == "sqlite" else "unsupported"
    assert (response.status, response.error.category) == ("rejected", category)


def test_a_table_of_another_version_is_not_found(place, broker):
    """C4: a column is missing; to try again does not help."""
    place.query("ALTER TABLE dispatchers_outbox RENAME COLUMN task TO work")
    engine = sa.create_engine(sqlalchemy_url(place), poolclass=sa.NullPool)
    with configured(place, broker), engine.connect() as connection:
        response = note.options(dispatcher=Outbox(connection)).dispatch(n=1)

    assert (response.status, response.error.category) == ("rejected", "not_found")


@pytest.mark.parametrize("isolation", ["", None], ids=["transaction", "autocommit"])
def test_of_many_all_are_written_or_none(sqlite_place, broker, monkeypatch, isolation):
    """C3: what is rejected is not there, though the statements before it went well."""
    monkeypatch.setattr(insert, "AT_ONCE", 2)
    connection = sqlite3.connect(sqlite_place.url[7:], isolation_level=isolation)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2000)
    requests = [note.request(n=number) for number in range(3)]
    large = DispatchRequest(task=note.name, payload={"n": 3}, headers={"x": "x" * 3000})
    with configured(sqlite_place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        connection.execute("INSERT INTO orders VALUES (1)")
        refused = Outbox(connection).dispatch_many([*requests, large])
        left = connection.execute("SELECT count(*) FROM dispatchers_outbox").fetchone()
        taken = Outbox(connection).dispatch_many(requests)
    connection.commit()
    connection.close()

    assert {(each.status, each.error.category) for each in refused} == {("rejected", "too_large")}
    assert left == (0,)
    assert taken.ok
    assert sqlite_place.count() == 3
    assert sqlite_place.query("SELECT count(*) FROM orders") == [(1,)]


def test_large_rows_are_several_statements(monkeypatch):
    """MariaDB ends a connection, and with it the transaction, that sends too much at once."""
    monkeypatch.setattr(insert, "BYTES", 100)
    sizes = (60, 60, 10, 30, 200, 10)
    rows = [insert.NewRow(str(n), "a", "", "t", False, b"x" * n_) for n, n_ in enumerate(sizes)]

    parts = [[len(row.body) for row in part] for part in insert._parts(rows)]

    assert parts == [[60], [60, 10, 30], [200], [10]]
