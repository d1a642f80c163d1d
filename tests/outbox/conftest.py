"""Databases of a test's own: a file, a schema of PostgreSQL, a database of MariaDB."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from dispatchers import BaseDispatcher, get_dispatcher, override, task
from dispatchers.outbox import PostgresStore, SQLiteStore, Store, schema
from dispatchers.outbox._sqlalchemy import SQLAlchemyStore
from dispatchers.testing import RecordingDispatcher

POSTGRES = os.environ.get(
    "DISPATCHERS_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test"
)
MARIADB = os.environ.get("DISPATCHERS_TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306")


class Place(NamedTuple):
    """A database with the tables of an outbox, and a table `orders` of an application."""

    dialect: str
    url: str

    def store(self) -> Store:
        """Return the database as the outbox has it."""
        if self.dialect == "sqlite":
            return SQLiteStore(self.url.removeprefix("sqlite:"))
        return SQLAlchemyStore(self.url) if self.dialect == "mysql" else PostgresStore(self.url)

    def connect(self) -> Any:
        """Return a connection of the application, by the driver."""
        if self.dialect == "sqlite":
            return sqlite3.connect(self.url.removeprefix("sqlite:"))
        if self.dialect == "mysql":
            return _mariadb(urlsplit(self.url).path[1:])
        return pytest.importorskip("psycopg").connect(self.url)

    def query(self, sql: str) -> list[Any]:
        """Return what a statement reads, on a connection of its own."""
        connection = self.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
        finally:
            connection.close()
        return rows

    def count(self, where: str = "1 = 1") -> int:
        """Return how many rows the outbox has."""
        return int(self.query(f"SELECT count(*) FROM dispatchers_outbox WHERE {where}")[0][0])


def _mariadb(name: str | None = None) -> Any:
    address = urlsplit(MARIADB)
    return pytest.importorskip("pymysql").connect(
        host=address.hostname or "127.0.0.1",
        port=address.port or 3306,
        user=address.username or "root",
        password=address.password or "",
        database=name,
    )


def _filled(place: Place) -> Place:
    for statement in [*schema(place.dialect), "CREATE TABLE orders (number INTEGER)"]:
        place.query(statement)
    return place


def _missing(name: str, exc: Exception) -> None:
    if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
        raise exc
    pytest.skip(f"needs {name}: {type(exc).__name__}")


@pytest.fixture
def sqlite_place(tmp_path) -> Place:
    """A file."""
    path = str(tmp_path / "shop.sqlite3")
    sqlite3.connect(path).close()
    return _filled(Place("sqlite", f"sqlite:{path}"))


@pytest.fixture
def postgres_place() -> Iterator[Place]:
    """A schema of its own."""
    psycopg = pytest.importorskip("psycopg", reason="needs pip install 'psycopg[binary]'")
    name = f"outbox_{uuid.uuid4().hex}"
    try:
        admin = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as exc:
        _missing("PostgreSQL", exc)
        raise
    with admin:
        admin.execute(f"CREATE SCHEMA {name}")
        yield _filled(Place("postgresql", f"{POSTGRES}?options=-csearch_path%3D{name}"))
        admin.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def mariadb_place() -> Iterator[Place]:
    """A database of its own."""
    pymysql = pytest.importorskip("pymysql", reason="needs pip install PyMySQL")
    name = f"outbox_{uuid.uuid4().hex}"
    try:
        admin = _mariadb()
    except pymysql.OperationalError as exc:
        _missing("MariaDB", exc)
        raise
    # A test that failed within a transaction holds up no other.
    admin.cursor().execute("SET lock_wait_timeout = 10")
    admin.cursor().execute(f"CREATE DATABASE {name}")
    yield _filled(Place("mysql", f"mysql+pymysql://{MARIADB.partition('://')[2]}/{name}"))
    admin.cursor().execute(f"DROP DATABASE {name}")
    admin.close()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def place(request) -> Place:
    """Each of the databases in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


def sqlalchemy_url(place: Place, driver: str = "") -> str:
    """Return the address of a database as SQLAlchemy takes it."""
    if place.dialect == "sqlite":
        return f"sqlite{driver}:///{place.url.removeprefix('sqlite:')}"
    return place.url.replace("postgresql://", f"postgresql+{driver or 'psycopg'}://")


@pytest.fixture
def broker() -> RecordingDispatcher:
    """What the outbox hands over to."""
    return RecordingDispatcher(alias="broker")


@task
def note(n: int) -> None:
    """Work of no importance."""


@contextmanager
def configured(place: Place, broker: BaseDispatcher, **options: Any) -> Iterator[Any]:
    """Have `default` be an outbox in a database, before a broker."""
    given = {"backend": "outbox", "to": "broker", "store": place.url, **options}
    with override(default=given, broker=broker):
        yield get_dispatcher()
