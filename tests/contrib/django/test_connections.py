"""Connections around runs: none that is stale is used, none outlives its age."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from dispatchers_django import OnCommit
from django.db import connection, connections, transaction

from dispatchers import RunSettings, override, run_envelope, task
from dispatchers.testing import RecordingDispatcher


def is_open() -> bool:
    return connection.connection is not None


@pytest.fixture
def query() -> Any:
    """A task that asks the database."""

    @task(name="shop.query")
    def query() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    return query


def body_of(work: Any) -> bytes:
    with override(default=(recording := RecordingDispatcher())):
        work.dispatch()
    return recording.dispatched[0].body


def test_a_worker_s_run_leaves_no_connection_open(query):
    """With `CONN_MAX_AGE = 0`, Django's default."""
    connection.close()

    outcome = run_envelope(body_of(query))

    assert outcome.ok
    assert not is_open()


def test_a_connection_that_may_live_longer_stays(query, monkeypatch):
    """With `CONN_MAX_AGE`."""
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 600)
    body = body_of(query)

    run_envelope(body)
    kept = connection.connection
    run_envelope(body)

    assert kept is not None
    assert connection.connection is kept


def test_a_broken_connection_is_not_used(query, monkeypatch):
    """A server that was restarted costs no run."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 600)
    monkeypatch.setattr(connections["default"], "is_usable", lambda: False)  # SQLite's always is
    connection.ensure_connection()
    broken = connection.connection
    connections["default"].errors_occurred = True

    outcome = run_envelope(body_of(query))

    assert outcome.ok
    assert connection.connection is not broken


def test_an_inline_dispatch_leaves_its_caller_s_connection(query, use):
    """The caller may be reading from it."""
    use(default="inline")
    connection.ensure_connection()
    before = connection.connection

    assert query.dispatch().ok
    assert query.options(dispatcher=OnCommit()).dispatch().ok
    with transaction.atomic():
        assert query.options(dispatcher=OnCommit()).dispatch().ok

    assert connection.connection is before


def test_a_failing_task_leaves_none_either():
    """After the run, whatever became of it."""

    @task(name="shop.fail")
    def fail() -> None:
        connection.ensure_connection()
        raise ValueError("of the test")

    run_envelope(body_of(fail), settings=RunSettings(quiet=True))

    assert not is_open()


def test_a_thread_s_runs_leave_none(query, use):
    """Of the `thread` backend, whose threads live on."""
    left: list[Any] = []
    done = threading.Event()

    @task(name="shop.look")
    def look() -> None:
        left.append(connection.connection)
        done.set()

    use(default={"backend": "thread", "workers": 1})
    query.dispatch()
    look.dispatch()

    assert done.wait(30)
    assert left == [None]


def test_an_open_transaction_is_left_alone(query):
    """A run inside one, in Django's own tests for one."""
    body = body_of(query)

    with transaction.atomic():
        run_envelope(body)

        assert is_open()
        assert connection.in_atomic_block
