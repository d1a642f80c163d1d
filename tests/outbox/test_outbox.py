"""`Outbox`: the transaction decides what becomes of the work (F4 to F6, F10; O1)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dispatchers import ConfigurationError, DispatchResponse, override
from dispatchers.outbox import ROWS, Outbox, create_tables, metadata
from dispatchers.testing import RecordingDispatcher, processes

from ..timing import within  # noqa: TID252 - as for the other cases
from .conftest import Place, configured, note, sqlalchemy_url


class Open(NamedTuple):
    """An open transaction of an application."""

    handle: Any
    """What an `Outbox` is given."""
    run: Callable[[str], object]
    """Runs a statement in it."""
    savepoint: Callable[[], AbstractContextManager[object]]


Begin = Callable[[], AbstractContextManager[Open]]
DATABASES = {
    "sqlite3": "sqlite",
    "psycopg": "postgres",
    "session-sqlite": "sqlite",
    "session-postgres": "postgres",
    "session-mariadb": "mariadb",
    "connection-postgres": "postgres",
    "scoped-sqlite": "sqlite",
}
SESSIONS = [name for name in DATABASES if name.startswith("s") and name != "sqlite3"]


class Way(NamedTuple):
    """A way to use a database, and the database."""

    name: str
    place: Place
    begin: Begin


@contextmanager
def by_sqlite3(place: Place) -> Iterator[Open]:
    connection = place.connect()

    @contextmanager
    def savepoint() -> Iterator[None]:
        connection.execute("SAVEPOINT inner_one")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK TO inner_one")
            raise
        connection.execute("RELEASE inner_one")

    try:
        with connection:
            yield Open(connection, connection.execute, savepoint)
    finally:
        connection.close()


@contextmanager
def by_psycopg(place: Place) -> Iterator[Open]:
    with psycopg.connect(place.url) as connection:
        yield Open(connection, connection.execute, connection.transaction)


@contextmanager
def by_session(engine: sa.Engine, make: Any = Session) -> Iterator[Open]:
    session = make(engine)
    try:
        with session.begin():
            yield Open(session, lambda sql: session.execute(sa.text(sql)), session.begin_nested)
    finally:
        session.close()


@contextmanager
def by_connection(engine: sa.Engine) -> Iterator[Open]:
    with engine.begin() as connection:
        yield Open(
            connection, lambda sql: connection.execute(sa.text(sql)), connection.begin_nested
        )


@pytest.fixture(params=DATABASES)
def way(request) -> Iterator[Way]:
    """Each way in turn."""
    yield from made(request, request.param)


@pytest.fixture(params=SESSIONS)
def session_way(request) -> Iterator[Way]:
    """Each way that knows of its commits."""
    yield from made(request, request.param)


def made(request: Any, name: str) -> Iterator[Way]:
    place = request.getfixturevalue(f"{DATABASES[name]}_place")
    kind, _, rest = name.partition("-")
    if not rest:
        begin = {"sqlite3": by_sqlite3, "psycopg": by_psycopg}[name]
        yield Way(name, place, lambda: begin(place))
        return
    engine = sa.create_engine(sqlalchemy_url(place))
    scoped = lambda engine: scoped_session(sessionmaker(engine))
    begins: dict[str, Begin] = {
        "session": lambda: by_session(engine),
        "scoped": lambda: by_session(engine, scoped),
        "connection": lambda: by_connection(engine),
    }
    yield Way(name, place, begins[kind])
    engine.dispose()


@pytest.fixture
def outbox(way, broker) -> Iterator[Any]:
    """The outbox of the way, which hands over when it is told to."""
    with configured(way.place, broker) as found:
        found.forwarder.start = lambda: None
        yield found


class Undone(Exception):
    """Ends a transaction."""


def drained(outbox: Any) -> None:
    outbox.forwarder.run(lambda: False, drain=True)


# The transaction decides.


def test_work_leaves_once_the_transaction_is_committed(way, outbox, broker):
    """F5, F6: not before; and the answer says so."""
    with way.begin() as opened:
        opened.run("INSERT INTO orders VALUES (1)")
        response = note.options(dispatcher=Outbox(opened.handle)).dispatch(n=1)
        drained(outbox) if way.place.dialect != "sqlite" else None
        assert not broker.requests
    drained(outbox)

    assert (response.status, response.durable, response.dispatcher) == (
        "deferred",
        False,
        "default",
    )
    assert [each.id for each in broker.requests] == [response.request_id]
    assert way.place.query("SELECT number FROM orders") in ([(1,)], ((1,),))


def test_a_rollback_takes_the_work_with_it(way, outbox, broker):
    """F6, O1: as it takes the data."""
    with pytest.raises(Undone), way.begin() as opened:
        opened.run("INSERT INTO orders VALUES (1)")
        assert note.options(dispatcher=Outbox(opened.handle)).dispatch(n=1).ok
        raise Undone
    drained(outbox)

    assert not broker.requests
    assert way.place.count() == 0


def test_a_savepoint_that_is_rolled_back_takes_its_work_with_it(way, outbox, broker):
    """F6, O1: and nothing else."""
    with way.begin() as opened:
        opened.run("INSERT INTO orders VALUES (1)")
        dispatcher = Outbox(opened.handle)
        note.options(dispatcher=dispatcher).dispatch(n=1)
        with pytest.raises(Undone), opened.savepoint():
            note.options(dispatcher=dispatcher).dispatch(n=2)
            raise Undone
        with opened.savepoint():
            note.options(dispatcher=dispatcher).dispatch(n=3)
    drained(outbox)

    assert [each.payload["n"] for each in broker.requests] == [1, 3]


def test_many_are_one_statement(way, outbox, broker):
    """In their order, each with its answer."""
    with way.begin() as opened:
        requests = [note.request(n=n) for n in range(20)]
        responses = Outbox(opened.handle).dispatch_many([*requests[:10], "no", *requests[10:]])
    drained(outbox)

    assert [each.ok for each in responses] == [True] * 10 + [False] + [True] * 10
    assert [each.payload["n"] for each in broker.requests] == list(range(20))


def test_what_the_broker_cannot_do_is_refused_at_once(way, outbox):
    """F4: while the caller looks; nothing is written."""
    weak = RecordingDispatcher(alias="weak")
    weak.capabilities = weak.capabilities.model_copy(update={"priority": False})
    to = {"backend": "outbox", "to": "weak", "store": way.place.url}
    with override(other=to, weak=weak), way.begin() as opened:
        urgent = note.options(dispatcher=Outbox(opened.handle, to="other"), priority=9)
        response = urgent.dispatch(n=1)

    assert (response.status, response.error.category) == ("rejected", "unsupported")
    assert way.place.count() == 0


def test_without_tables_the_answer_says_so(way, outbox):
    """C1: the call does not raise; it, and the check, name the cure."""
    way.place.query("DROP TABLE dispatchers_outbox")
    with pytest.raises(Undone), way.begin() as opened:
        response = note.options(dispatcher=Outbox(opened.handle)).dispatch(n=1)
        assert (response.status, response.error.category) == ("rejected", "not_found")
        raise Undone
    alone = note.dispatch(n=2)

    assert (alone.status, alone.error.category) == ("rejected", "not_found")
    for said in (response, alone):
        assert "make the tables by dispatchers.outbox.create_tables" in said.error.message
    with pytest.raises(ConfigurationError, match=r"outbox\.create_tables"):
        outbox.check(contact=True)


def test_with_a_savepoint_the_transaction_can_go_on(way, outbox):
    """F6: as it does by itself everywhere but on PostgreSQL."""
    way.place.query("DROP TABLE dispatchers_outbox")
    with way.begin() as opened:
        dispatcher = Outbox(opened.handle, savepoint=True)
        assert note.options(dispatcher=dispatcher).dispatch(n=1).status == "rejected"
        opened.run("INSERT INTO orders VALUES (1)")

    assert len(way.place.query("SELECT number FROM orders")) == 1


def test_a_broker_may_be_named_by_its_own_alias(way, outbox, broker):
    """The outbox that hands over to it is found."""
    with way.begin() as opened:
        assert note.options(dispatcher=Outbox(opened.handle, to="broker")).dispatch(n=1).ok

    assert way.place.count("alias = 'broker'") == 1


def test_what_would_never_leave_is_refused(way, outbox):
    """O8: no outbox hands over to it."""
    with override(lonely=RecordingDispatcher(alias="lonely")), way.begin() as opened:
        response = note.options(dispatcher=Outbox(opened.handle, to="lonely")).dispatch(n=1)

    assert response.error.category == "configuration"
    assert "no dispatcher of backend 'outbox' hands over to 'lonely'" in response.error.message


def test_the_lane_is_the_header_or_the_queue(way, outbox):
    """F8: one that no column takes goes by another name."""
    lanes = ["a", "b" * 300, "nul\0", "é"]
    with way.begin() as opened:
        for lane in lanes:
            dispatcher = Outbox(opened.handle)
            assert note.options(dispatcher=dispatcher, headers={"lane": lane}).dispatch(n=1).ok
        assert note.options(dispatcher=dispatcher, queue="mail").dispatch(n=1).ok
    found = [lane for (lane,) in way.place.query("SELECT lane FROM dispatchers_outbox")]

    assert len(set(found)) == 5
    assert {"a", "é", "mail"} < set(found)


# The end of a session's transaction is known.


def test_after_the_commit_this_process_hands_over(session_way, broker):
    """F10: at once, in the background; who wrote it is told the final answer."""
    told: list[DispatchResponse] = []
    with configured(session_way.place, broker):
        with session_way.begin() as opened:
            dispatcher = Outbox(opened.handle, on_result=told.append)
            response = note.options(dispatcher=dispatcher).dispatch(n=1)
            assert not told
        processes.wait_until(lambda: told, "nothing is told")

    assert [(each.request_id, each.status) for each in told] == [(response.request_id, "accepted")]
    assert len(broker.requests) == 1


def test_after_a_rollback_it_is_told_that_nothing_will_be_done(session_way, broker):
    """O1: of a savepoint, and of one within it, too."""
    told: list[DispatchResponse] = []
    with configured(session_way.place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        with pytest.raises(Undone), session_way.begin() as opened:
            send = note.options(dispatcher=Outbox(opened.handle, on_result=told.append))
            send.dispatch(n=1)
            with pytest.raises(Undone), opened.savepoint():
                send.dispatch(n=2)
                with opened.savepoint():
                    send.dispatch(n=3)
                assert not told
                raise Undone
            assert [each.request.payload["n"] for each in told] == [2, 3]
            raise Undone

    assert [each.request.payload["n"] for each in told] == [2, 3, 1]
    assert {(each.status.value, each.error.category.value) for each in told} == {
        ("rejected", "closed")
    }


def test_a_session_that_is_closed_has_rolled_back(session_way, broker):
    """O1: without a word."""
    told: list[DispatchResponse] = []
    with configured(session_way.place, broker):
        with pytest.raises(Undone), session_way.begin() as opened:
            dispatcher = Outbox(opened.handle, on_result=told.append)
            note.options(dispatcher=dispatcher).dispatch(n=1)
            opened.handle.close()
            raise Undone

    assert [each.error.category for each in told] == ["closed"]


def test_a_session_serves_several_transactions(session_way, broker):
    """Each has its own end."""
    told: list[DispatchResponse] = []
    lock = threading.Lock()

    def note_it(response: DispatchResponse) -> None:
        with lock:
            told.append(response)

    with configured(session_way.place, broker):
        for n in range(3):
            with session_way.begin() as opened:
                dispatcher = Outbox(opened.handle, on_result=note_it)
                note.options(dispatcher=dispatcher).dispatch(n=n)
        processes.wait_until(lambda: len(told) == 3, "not all are told")

    assert [each.request.payload["n"] for each in told] == [0, 1, 2]


def test_on_result_may_raise(session_way, broker, caplog):
    """It is told what happened, and changes nothing."""
    seen = threading.Event()

    def fail(response: DispatchResponse) -> None:
        seen.set()
        raise ValueError("mine")

    with configured(session_way.place, broker) as outbox:
        with session_way.begin() as opened:
            note.options(dispatcher=Outbox(opened.handle, on_result=fail)).dispatch(n=1)
        assert seen.wait(30)
        processes.wait_until(outbox.rows.is_empty, "the row stays")

    assert "on_result raised ValueError" in caplog.text


# What is given.


def test_a_connection_in_autocommit_mode_commits_the_row(sqlite_place, postgres_place, broker):
    """F5: then it is durable at once."""
    for place, connect in (
        (sqlite_place, lambda url: sqlite3.connect(url[7:], isolation_level=None)),
        (postgres_place, lambda url: psycopg.connect(url, autocommit=True)),
    ):
        with configured(place, broker) as outbox:
            outbox.forwarder.start = lambda: None
            connection = connect(place.url)
            alone = note.options(dispatcher=Outbox(connection)).dispatch(n=1)
            connection.execute("BEGIN")
            within = note.options(dispatcher=Outbox(connection)).dispatch(n=1)
            connection.close()

        assert (alone.durable, within.durable) == (True, False)
        assert place.count() == 1


@pytest.mark.parametrize("given", [None, "postgresql://", object()])
def test_what_is_no_connection_is_refused(sqlite_place, broker, given):
    """C1: by a response that says what would be one."""
    with configured(sqlite_place, broker):
        response = note.options(dispatcher=Outbox(given)).dispatch(n=1)

    assert (response.status, response.error.category) == ("rejected", "invalid")
    assert "connection of sqlite3" in response.error.message


def test_a_function_is_called_with_results(sqlite_place):
    """And nothing else."""
    with pytest.raises(TypeError, match="on_result is called with responses, not int"):
        Outbox(sqlite3.connect(":memory:"), on_result=3)


def test_a_row_factory_is_left_alone(sqlite_place, broker):
    """The connection is the application's."""
    connection = sqlite_place.connect()
    connection.row_factory = lambda cursor, row: {"n": row[0]}
    with configured(sqlite_place, broker):
        with connection:
            assert note.options(dispatcher=Outbox(connection)).dispatch(n=1).ok
    connection.close()


# Deadlines.


def test_a_lock_that_is_held_costs_the_deadline(way, outbox, timed):
    """C2: and the settings of the connection are as before."""
    if way.place.dialect == "mysql":
        pytest.skip("the driver has nothing that bounds one statement: docs/never-lose.md")
    locks = {
        "sqlite": "BEGIN IMMEDIATE",
        "postgresql": "LOCK TABLE dispatchers_outbox IN ACCESS EXCLUSIVE MODE",
    }
    holder = way.place.connect()
    holder.execute(locks[way.place.dialect])
    with pytest.raises(Undone), way.begin() as opened:
        send = note.options(dispatcher=Outbox(opened.handle), deadline=0.5)
        response = timed(lambda: send.dispatch(n=1), 0.75)
        assert (response.status, response.error.category) == ("rejected", "timeout")
        holder.rollback()
        if way.place.dialect == "sqlite":
            assert send.dispatch(n=1).ok
        raise Undone
    holder.close()


@pytest.fixture
def timed() -> Callable[..., Any]:
    """Calls a function, which has to return in time."""

    def call(function: Callable[[], Any], seconds: float) -> Any:
        with within(seconds):
            return function()

    return call


# The tables.


@pytest.mark.parametrize("name", ["sqlite3", "psycopg", "engine", "connection", "session"])
def test_tables_are_made_where_they_are_missing(postgres_place, tmp_path, name):
    """Twice does no harm."""
    postgres_place.query("DROP TABLE dispatchers_outbox")
    postgres_place.query("DROP TABLE dispatchers_outbox_leader")
    engine = sa.create_engine(sqlalchemy_url(postgres_place))
    if name == "sqlite3":
        connection: Any = sqlite3.connect(tmp_path / "new.db")
        create_tables(connection)
        create_tables(connection)
        assert connection.execute("SELECT * FROM dispatchers_outbox").fetchall() == []
        connection.close()
        return
    if name == "engine":
        create_tables(engine)
        create_tables(engine)
    elif name == "psycopg":
        with psycopg.connect(postgres_place.url) as connection:
            create_tables(connection)
    else:
        with Session(engine) as session, session.begin():
            create_tables(session if name == "session" else session.connection())
    engine.dispose()

    assert postgres_place.count() == 0


def test_tables_cannot_be_made_in_other_things():
    """The error says in which."""
    with pytest.raises(TypeError, match="give an engine or a connection"):
        create_tables("postgresql://")


def test_sqlalchemy_is_imported_by_those_who_ask(tmp_path):
    """Without it the error names the extra, and everything else works."""
    script = """
import sqlite3, sys
sys.modules["sqlalchemy"] = None
import dispatchers.outbox as outbox
outbox.create_tables(sqlite3.connect(":memory:"))
for ask in (lambda: outbox.metadata, lambda: outbox.OutboxDispatcher(to="a", store="mysql://h/d")):
    try:
        ask()
    except ImportError as exc:
        assert "dispatchers[sqlalchemy]" in str(exc), exc
    except Exception as exc:
        assert "'a'" in str(exc), exc  # there is no such dispatcher
    else:
        raise AssertionError("it was not missed")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_the_tables_of_sqlalchemy_are_those_of_the_sql(place):
    """For Alembic: one definition."""
    engine = sa.create_engine(sqlalchemy_url(place))
    found = sa.inspect(engine)
    for table in metadata.tables.values():
        made = {each["name"]: each["nullable"] for each in found.get_columns(table.name)}
        made["seq" if "seq" in made else "alias"] = False  # SQLite: a key may be null by its words
        assert made == {each.name: each.nullable for each in table.columns}
    indexes = {each["name"]: each["column_names"] for each in found.get_indexes(ROWS.name)}
    assert indexes["dispatchers_outbox_due"] == ["dead", "alias", "seq"]
    engine.dispose()


def test_the_tables_of_sqlalchemy_serve(sqlite_place, broker):
    """Made by `metadata.create_all`, as a migration does."""
    sqlite_place.query("DROP TABLE dispatchers_outbox")
    sqlite_place.query("DROP TABLE dispatchers_outbox_leader")
    engine = sa.create_engine(sqlalchemy_url(sqlite_place))
    metadata.create_all(engine)
    with configured(sqlite_place, broker):
        with Session(engine) as session, session.begin():
            note.options(dispatcher=Outbox(session)).dispatch(n=1)
        processes.wait_until(lambda: broker.requests, "it stays")
    engine.dispose()
