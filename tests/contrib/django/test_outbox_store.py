"""`DjangoStore`: the connection of what hands over, to each kind of database."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from dispatchers_django.models import OutboxRow
from dispatchers_django.outbox import DjangoStore, store
from django.db import connections, transaction
from django.test import override_settings

from dispatchers import ConfigurationError, DispatchRequest
from dispatchers.forwarding import Forwarder, Step
from dispatchers.outbox import NewRow, OutboxRows
from dispatchers.testing import RecordingDispatcher

from .databases import KINDS, database


@pytest.fixture(scope="module", params=KINDS)
def using(request: pytest.FixtureRequest, tables: None) -> Iterator[str]:
    """The alias of a database, one of each kind."""
    with database(request.param) as alias:
        yield alias


@pytest.fixture
def place(using: str) -> Iterator[DjangoStore]:
    OutboxRow.objects.using(using).all().delete()
    place = store(using)
    yield place
    place.close()


def put(place: DjangoStore, *numbers: int) -> None:
    requests = [DispatchRequest(task="shop.send", payload={"n": each}) for each in numbers]
    rows = [
        NewRow.of(
            each,
            each.model_dump_json(exclude={"deadline", "deduplicate"}, exclude_none=True).encode(),
            "broker",
            "",
        )
        for each in requests
    ]
    OutboxRows(place, "broker").put(rows, timeout=5)


def rows(using: str) -> int:
    return OutboxRow.objects.using(using).count()


def test_rows_are_read_and_settled_by_the_core(using, place):
    """The SQL is the core's; its tables are those of the migration."""
    broker = RecordingDispatcher(alias="broker")
    forwarder = Forwarder(OutboxRows(place, "broker"), broker)
    put(place, *range(20))

    step = forwarder.step()

    assert step is Step.MOVED
    assert [each.payload["n"] for each in broker.requests] == list(range(20))
    assert rows(using) == 0
    forwarder.leave()


def test_an_error_rolls_back(using, place):
    """And the next transaction is fine."""
    with pytest.raises(ZeroDivisionError), place.transaction(timeout=5) as executor:
        executor.execute("DELETE FROM dispatchers_outbox_leader")
        put_within(executor)
        raise ZeroDivisionError
    nothing = rows(using)
    put(place, 1)

    assert (nothing, rows(using)) == (0, 1)


def put_within(executor: Any) -> None:
    executor.execute(
        "INSERT INTO dispatchers_outbox (id, alias, lane, task, deduplicate, body, tries, "
        "created_at, dead) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ["x", "broker", "", "t", False, b"{}", 0, 0.0, False],
    )


def test_a_transaction_of_the_application_is_not_joined(using, place):
    """F9: even in its own thread, as `POST /dispatchers/relay` may be."""
    with transaction.atomic(using=using):
        inside = OutboxRows(place, "broker").is_empty()
        if connections[using].vendor != "sqlite":  # of which one transaction writes at a time
            put(place, 1)
        transaction.set_rollback(True, using=using)

    assert inside
    assert rows(using) == (0 if connections[using].vendor == "sqlite" else 1)


def test_a_connection_that_was_lost_is_made_again(using, place):
    """The server was restarted, or a proxy has cut it off: the next try is fine."""
    put(place, 1)
    sever(place)
    with pytest.raises(Exception):
        put(place, 2)
    put(place, 3)

    assert rows(using) == 2


def sever(place: DjangoStore) -> None:
    """Have the server end the connection, as it does at its shutdown."""
    raw = place._connection.connection
    if place.dialect == "sqlite":
        raw.close()
        return
    number = raw.info.backend_pid if place.dialect == "postgresql" else raw.thread_id()
    end = "SELECT pg_terminate_backend(%s)" if place.dialect == "postgresql" else "KILL %s"
    with connections[place.alias].cursor() as cursor:
        cursor.execute(end, [number])


def test_a_forked_child_has_a_connection_of_its_own(using, place):
    """C8, O15: the parent's goes on; nothing is sent over it by the child."""
    put(place, 1)
    connections[using].close()
    if (child := os.fork()) == 0:
        try:
            put(place, 2)
            place.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    put(place, 3)

    assert rows(using) == 3


def test_a_commit_of_others_is_heard_of(using, place):
    """SQLite and PostgreSQL tell; of MySQL nothing is heard, and the tables are looked at."""
    heard, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=place.watch, args=(heard.set, over.is_set))
    thread.start()
    try:
        if place.dialect != "mysql":
            assert heard.wait(30)  # of what was there before
            heard.clear()
            put(place, 1)
            assert heard.wait(30)
    finally:
        over.set()
        thread.join(30)

    assert not thread.is_alive()


def test_no_connection_of_a_thread_is_used(using, place):
    """Those of Django's are closed by nobody in a thread that Django does not look after."""
    before: list[Any] = []

    def hand_over() -> None:
        put(place, 1)
        before.extend(connections.all(initialized_only=True))

    thread = threading.Thread(target=hand_over)
    thread.start()
    thread.join()

    assert before == []
    assert rows(using) == 1


def test_an_unknown_database_is_named_with_the_nearest():
    """C4, C12."""
    with pytest.raises(ConfigurationError, match=r"no database 'defualt'.*did you mean 'default'"):
        store("defualt")


class ToOther:
    """A router that writes the outbox elsewhere."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        del hints
        return "other" if model is OutboxRow else None


def test_without_an_alias_the_routers_say():
    """`django:`."""
    by_default = store("").alias
    with override_settings(DATABASE_ROUTERS=[ToOther()]):
        routed = store("").alias

    assert (by_default, routed) == ("default", "other")
