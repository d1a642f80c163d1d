"""`outbox` over a bare INSERT, and from the commit to the broker: PostgreSQL, SQLite, Redis."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, sleep, time
from typing import Any
from uuid import uuid4

import psycopg
import redis
from dispatchers_rq import RQDispatcher
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from dispatchers import DispatchRequest, get_dispatcher, override
from dispatchers._models.envelope import encode
from dispatchers.forwarding import Step
from dispatchers.outbox import NewRow, Outbox, schema
from dispatchers.testing import RecordingDispatcher
from dispatchers.testing.servers import RedisServer

from ._measure import Figure, interleaved, ratio
from .tasks import small

POSTGRES = os.environ.get(
    "DISPATCHERS_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test"
)
ROWS, MANY, COMMITS = 20_000, 100_000, 200
BARE = (
    "INSERT INTO bare (id, alias, lane, task, deduplicate, body, tries, created_at, dead) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@contextmanager
def _postgres() -> Iterator[str]:
    """A schema of its own."""
    name = f"bench_{uuid4().hex}"
    with psycopg.connect(POSTGRES, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA {name}".encode())
        url = f"{POSTGRES}?options=-csearch_path%3D{name}"
        with psycopg.connect(url) as connection:
            _make(connection, "postgresql")
        yield url
        admin.execute(f"DROP SCHEMA {name} CASCADE".encode())


def _make(connection: Any, dialect: str) -> None:
    for statement in schema(dialect):
        connection.execute(statement)
        if "_leader" not in statement:
            connection.execute(statement.replace("dispatchers_outbox", "bare"))


def insert() -> Iterator[Figure]:
    """The same row in a table of the same shape, by the same connection."""
    with TemporaryDirectory() as folder, _postgres() as url:
        path = str(Path(folder, "shop.sqlite3"))
        file = sqlite3.connect(path)
        _make(file, "sqlite")
        file.commit()
        yield from _inserts("SQLite", file, f"sqlite:{path}", "?")
        file.close()
        with psycopg.connect(url) as connection:
            yield from _inserts("PostgreSQL", connection, url, "%s")


def _inserts(name: str, connection: Any, store: str, mark: str) -> Iterator[Figure]:
    sql = BARE.replace("?", mark)
    given = {"backend": "outbox", "to": "broker", "store": store}
    quiet = {**given, "notify": False}

    def bare() -> None:
        request = small.request(number=1, text="abc")
        values = [request.id, "broker", "", request.task, False, encode(request), 0, time(), False]
        connection.execute(sql, values)

    def ours(alias: str) -> Callable[[], None]:
        def call() -> None:
            small.options(dispatcher=Outbox(connection, alias)).dispatch(number=1, text="abc")

        return call

    def committed(call: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            call()
            connection.commit()

        return both

    broker = RecordingDispatcher(alias="broker")
    with override(default=given, quiet=quiet, broker=broker):
        calls = [bare, ours("default"), ours("quiet")]
        alone = interleaved(*calls, rounds=20, each=50)
        connection.commit()
        whole = interleaved(*map(committed, calls), rounds=20, each=20)
    yield ratio(
        f"outbox: a row over a bare INSERT, {name}, within a transaction", 1.3, alone[1], alone[0]
    )
    yield ratio(f"outbox: the same with its commit, {name}", 1.3, whole[1], whole[0])
    if name == "PostgreSQL":
        yield ratio(f"outbox: the same with notify = false, {name}", 1.3, whole[2], whole[0])


def latency() -> Iterator[Figure]:
    """From the commit until the job is in Redis."""
    with _postgres() as url, RedisServer(keeps="nothing") as server:
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        client = redis.Redis.from_url(server.url)
        queue = f"bench-{uuid4().hex}"
        broker = {"backend": "rq", "url": server.url, "queue": queue}
        given = {"backend": "outbox", "to": "broker", "store": url}
        with override(default=given, broker=broker):

            def by_session() -> float:
                with Session(engine) as session, session.begin():
                    small.options(dispatcher=Outbox(session)).dispatch(number=1, text="abc")
                return perf_counter()

            yield from _latency("in this process", 5.0, 25.0, by_session, client, queue)
            get_dispatcher().close()
        with override(default=given, broker=broker), psycopg.connect(url) as connection:

            def by_psycopg() -> float:
                small.options(dispatcher=Outbox(connection)).dispatch(number=1, text="abc")
                connection.commit()
                return perf_counter()

            with _relay(url, server.url, queue):
                sleep(2.0)
                yield from _latency("by a relay", 15.0, 60.0, by_psycopg, client, queue)
        engine.dispose()


def _latency(
    name: str, half: float, most: float, commit: Callable[[], float], client: Any, queue: str
) -> Iterator[Figure]:
    for _ in range(5):
        commit()
        client.blpop(f"rq:queue:{queue}", timeout=30)
    times = []
    for _ in range(COMMITS):
        began = commit()
        client.blpop(f"rq:queue:{queue}", timeout=30)
        times.append((perf_counter() - began) * 1e3)
        sleep(0.02)
    cuts = quantiles(times, n=100)
    case = f"outbox: from the commit to Redis, PostgreSQL, {name}"
    yield Figure(f"{case}, p50", half, cuts[49], f"{cuts[49]:.2f} ms", "ms")
    yield Figure(f"{case}, p99", most, cuts[98], f"{cuts[98]:.2f} ms", "ms")


@contextmanager
def _relay(store: str, url: str, queue: str) -> Iterator[None]:
    with TemporaryDirectory() as folder:
        Path(folder, "dispatchers.toml").write_text(
            'target = "t"\n[targets.t]\n'
            f'default = {{ backend = "outbox", to = "broker", store = "{store}" }}\n'
            f'broker = {{ backend = "rq", url = "{url}", queue = "{queue}" }}\n'
        )
        words = [sys.executable, "-m", "dispatchers", "relay"]
        process = subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL)
        yield
        process.terminate()
        process.wait(30)


def drained() -> Iterator[Figure]:
    """O4: what waited while the broker was down."""
    with _postgres() as url, RedisServer(keeps="nothing") as server:
        for count, lanes in ((ROWS, 100), (ROWS, 1), (MANY, 100)):
            took = _drained(url, server.url, count, lanes)
            case = f"outbox: {count:,} rows from PostgreSQL to Redis, {lanes} lanes"
            yield Figure(
                case,
                30.0 if count == MANY else count / 5000,
                took,
                f"{count / took:,.0f} rows per second",
                "s",
            )


def _drained(url: str, to: str, count: int, lanes: int) -> float:
    broker = RQDispatcher(url=to, queue=f"bench-{uuid4().hex}", alias="broker", deadline=30.0)
    with override(default={"backend": "outbox", "to": "broker", "store": url}, broker=broker):
        outbox: Any = get_dispatcher()
        requests = [DispatchRequest(task=small.name, payload={"number": n}) for n in range(count)]
        rows = [
            NewRow.of(each, encode(each), "broker", f"lane-{n % lanes}")
            for n, each in enumerate(requests)
        ]
        outbox.rows.put(rows, timeout=60.0)
        started = perf_counter()
        while outbox.forwarder.step() is not Step.EMPTY:
            pass
        took = perf_counter() - started
        outbox.forwarder.leave()  # else the next one waits until its lease has run out
    broker.close()
    return took
