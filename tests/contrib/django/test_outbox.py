"""The outbox in Django's databases: rows beside the application's own, handed over by themselves.

F5 to F10, O1 to O8, on SQLite, PostgreSQL and MariaDB.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from dispatchers_django import OnCommit, dispatched
from dispatchers_django.models import OutboxRow
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext

from dispatchers import DispatchStatus, get_dispatcher, hooks
from dispatchers.testing import RecordingDispatcher, processes

from .databases import KINDS, database
from .test_outbox_store import sever

DEFERRED, ACCEPTED = DispatchStatus.DEFERRED, DispatchStatus.ACCEPTED


class RollbackError(Exception):
    """Ends a transaction."""


@pytest.fixture(scope="module", params=KINDS)
def using(request: pytest.FixtureRequest, tables: None) -> Iterator[str]:
    """The alias of a database, one of each kind."""
    with database(request.param) as alias:
        yield alias


@pytest.fixture
def broker(use: Any, using: str) -> RecordingDispatcher:
    """The broker behind an outbox in that database, which is the default dispatcher."""
    return installed(use, using)


def installed(use: Any, using: str, **more: Any) -> RecordingDispatcher:
    OutboxRow.objects.using(using).all().delete()
    broker = RecordingDispatcher(alias="broker")
    outbox = {"backend": "outbox", "to": "broker", "store": f"django:{using}", **more}
    use(default=outbox, broker=broker)
    return broker


def soon(condition: Any) -> bool:
    """True once the condition is; a minute later it is an error."""
    processes.wait_until(condition, "it never became so")
    return True


def rows(using: str) -> int:
    return OutboxRow.objects.using(using).count()


def numbers(broker: RecordingDispatcher) -> list[int]:
    return [each.payload["number"] for each in broker.requests]


def arrived(broker: RecordingDispatcher, *expected: int) -> bool:
    soon(lambda: len(broker.requests) >= len(expected))
    return numbers(broker) == list(expected)


def settled(using: str) -> bool:
    return soon(lambda: rows(using) == 0)


# The transaction decides (F5, F6, O1).


def test_a_row_is_written_beside_the_application_s_own(send, using, broker):
    """F5, F6: `deferred`, not durable until the commit, by the connection of the transaction."""
    with transaction.atomic(using=using):
        response = send.dispatch(1)
        inside = rows(using)
        outside = _seen_by_another_connection(using)
        before = numbers(broker)

    assert (response.status, response.durable, response.ok) == (DEFERRED, False, True)
    assert (inside, outside, before) == (1, 0, [])
    assert arrived(broker, 1)
    assert broker.requests[0].id == response.request_id
    assert settled(using)


def _seen_by_another_connection(using: str) -> int:
    found: list[int] = []

    def look() -> None:
        found.append(rows(using))
        connections[using].close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def test_a_rollback_takes_the_row_with_it(send, using, broker):
    """F6, O1: what comes after it is handed over, and this never is."""
    with pytest.raises(RollbackError), transaction.atomic(using=using):
        send.dispatch(1)
        raise RollbackError
    with transaction.atomic(using=using):
        send.dispatch(2)

    assert settled(using)
    assert numbers(broker) == [2]


def test_a_rollback_of_a_savepoint_takes_its_rows_with_it(send, using, broker):
    """F6: and leaves those from before and after."""
    with transaction.atomic(using=using):
        send.dispatch(1)
        with pytest.raises(RollbackError), transaction.atomic(using=using):
            send.dispatch(2)
            raise RollbackError
        with transaction.atomic(using=using):
            send.dispatch(3)

    assert arrived(broker, 1, 3)


def test_a_transaction_that_is_marked_for_rollback_takes_the_row_along(send, using, broker):
    """F6: `set_rollback`, as an error that was swallowed too deep does it."""
    with transaction.atomic(using=using):
        send.dispatch(1)
        transaction.set_rollback(True, using=using)

    assert (rows(using), numbers(broker)) == (0, [])


def test_outside_a_transaction_the_row_is_committed_at_once(send, using, broker):
    """F5: durable, as autocommit has it."""
    response = send.dispatch(1)

    assert (response.status, response.durable) == (DEFERRED, True)
    assert arrived(broker, 1)
    assert settled(using)


def test_a_batch_is_one_statement(send, using, broker):
    """And one hand-over."""
    batch = send.options().batch()
    for each in (1, "two", 3):
        batch.add(each)

    with transaction.atomic(using=using), CaptureQueriesContext(connections[using]) as captured:
        responses = batch.dispatch()

    assert [each.status.value for each in responses] == ["deferred", "rejected", "deferred"]
    assert [each["sql"].count("INSERT INTO") for each in captured] == [1]
    assert arrived(broker, 1, 3)


def test_a_row_that_cannot_be_written_takes_the_transaction_back(send, using, broker):
    """F6: as a `save()` that failed; the answer says why, and nothing is committed without work."""
    table = OutboxRow._meta.db_table
    with connections[using].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO gone")
    try:
        with transaction.atomic(using=using):
            response = send.dispatch(1)
            marked = transaction.get_rollback(using=using)
    finally:
        with connections[using].cursor() as cursor:
            cursor.execute(f"ALTER TABLE gone RENAME TO {table}")

    assert response.status is DispatchStatus.REJECTED
    assert marked


def test_a_transaction_that_is_broken_already_rejects(send, using, broker):
    """C1, F6: its own error is an answer, and goes on to end it."""
    with pytest.raises(IntegrityError), transaction.atomic(using=using):
        try:
            OutboxRow.objects.using(using).create(request_id=None)
        except IntegrityError as exc:
            response = send.dispatch(1)
            raise exc from None

    assert response.status is DispatchStatus.REJECTED
    assert numbers(broker) == []


def test_manual_transactions_are_the_application_s(send, using, broker):
    """Without autocommit: not durable, gone with a rollback, handed over after the commit."""
    transaction.set_autocommit(False, using=using)
    try:
        undone = send.dispatch(1)
        transaction.rollback(using=using)
        response = send.dispatch(2)
        before = list(broker.requests)
        transaction.commit(using=using)
    finally:
        transaction.set_autocommit(True, using=using)

    assert [each.status for each in (undone, response)] == [DEFERRED, DEFERRED]
    assert (response.durable, before) == (False, [])
    assert arrived(broker, 2)
    assert settled(using)


# Handed over by itself (F10), and told.


def test_everybody_hears_the_final_response(send, using, broker):
    """Hooks and the signal, from the thread that hands over."""
    heard: list[Any] = []
    answers: list[Any] = []

    def receiver(sender: Any, response: Any, using: str, **_: Any) -> None:
        heard.append((response.request_id, response.status, using))

    @hooks.after_dispatch
    def after(response: Any) -> None:
        answers.append(response.status)

    dispatched.connect(receiver)
    try:
        with transaction.atomic(using=using):
            response = send.dispatch(1)
            before = list(heard)
        assert soon(lambda: heard)
    finally:
        dispatched.disconnect(receiver)

    assert before == []
    assert heard == [(response.request_id, ACCEPTED, using)]
    assert answers == [DEFERRED, ACCEPTED]


def test_on_commit_over_an_outbox_writes_the_row_at_once(send, using, broker):
    """Code that waits for the commit already loses nothing between commit and hand-over, either."""
    told: list[Any] = []
    with transaction.atomic(using=using):
        response = send.options(dispatcher=OnCommit(on_result=told.append)).dispatch(1)
        inside = rows(using)

    assert (response.status, inside) == (DEFERRED, 1)
    assert soon(lambda: told)
    assert [(each.request_id, each.status) for each in told] == [(response.request_id, ACCEPTED)]


def test_on_commit_over_an_outbox_goes_with_a_rollback(send, using, broker):
    """And nothing is told of it, nor kept for it."""
    told: list[Any] = []
    with pytest.raises(RollbackError), transaction.atomic(using=using):
        send.options(dispatcher=OnCommit(on_result=told.append)).dispatch(1)
        raise RollbackError
    send.options(dispatcher=OnCommit(on_result=told.append)).dispatch(2)

    assert arrived(broker, 2)
    assert soon(lambda: told)
    assert [each.request.payload["number"] for each in told] == [2]


def test_async_code_writes_in_the_thread_of_its_queries(send, using, broker):
    """C8: `adispatch` and its batch, within the transaction that `sync_to_async` began."""

    async def main() -> tuple[Any, list[Any], int]:
        block = transaction.atomic(using=using)
        await sync_to_async(block.__enter__)()
        response = await send.adispatch(1)
        many = await get_dispatcher().adispatch_many([send.request(2), send.request(3)])
        inside = await sync_to_async(rows)(using)
        await sync_to_async(block.__exit__)(None, None, None)
        await sync_to_async(connections.close_all)()
        return response, list(many), inside

    response, many, inside = asyncio.run(main())

    assert [each.status for each in (response, *many)] == [DEFERRED] * 3
    assert not any(each.durable for each in (response, *many))
    assert inside == 3
    assert arrived(broker, 1, 2, 3)


def test_async_code_that_rolls_back_hands_nothing_over(send, using, broker):
    """F6."""

    async def main() -> None:
        block = transaction.atomic(using=using)
        await sync_to_async(block.__enter__)()
        await send.adispatch(1)
        await sync_to_async(block.__exit__)(RollbackError, RollbackError(), None)
        await sync_to_async(connections.close_all)()

    asyncio.run(main())
    send.dispatch(2)

    assert settled(using)
    assert numbers(broker) == [2]


def test_threads_have_transactions_of_their_own(send, using, broker):
    """C8: another thread's is not waited for, nor joined."""
    answers: list[Any] = []

    def other() -> None:
        answers.append(send.dispatch(1))
        connections[using].close()

    with transaction.atomic(using=using):
        connections[using].ensure_connection()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert arrived(broker, 1)

    assert answers[0].durable


def test_no_warning_is_given(send, using, broker, caplog):
    """For a row in the transaction is what the warning asks for."""
    with caplog.at_level(logging.WARNING), transaction.atomic(using=using):
        response = send.dispatch(1)

    assert response.ok
    assert settled(using)
    assert caplog.records == []  # an error made of a warning would be logged


def test_a_broker_that_is_back_gets_all_of_it_in_order(send, using, broker):
    """O4: by itself, without a restart of anything, and without another dispatch."""
    with broker.down():
        for number in range(1, 21):
            with transaction.atomic(using=using):
                assert send.dispatch(number).ok
        assert soon(lambda: OutboxRow.objects.using(using).filter(tries__gt=0).exists())
        held = rows(using)

    assert held == 20
    assert arrived(broker, *range(1, 21))
    assert settled(using)


def test_what_can_never_be_taken_is_dead_and_its_lane_goes_on(send, using, broker):
    """F7, O8: the row stays, with the reason."""
    broker.fail_next(category="too_large")
    send.dispatch(1)
    assert soon(lambda: OutboxRow.objects.using(using).filter(dead=True).exists())
    send.dispatch(2)

    assert arrived(broker, 2)
    dead = OutboxRow.objects.using(using).get(dead=True)
    assert "too_large" in dead.why
    assert dead.task == "shop.send"


# Connections.


def test_no_transaction_is_open_while_the_broker_is_spoken_to(send, using, use):
    """F9: the thread that hands over has none, whatever it takes the broker."""
    seen: list[int] = []
    broker = installed(use, using)
    given = broker._send

    def look(request: Any, body: bytes, **more: Any) -> Any:
        seen.append(_open_transactions(using))
        return given(request, body, **more)

    broker._send = look  # type: ignore[method-assign]
    send.dispatch(1)

    assert soon(lambda: seen)
    assert seen == [0]


OPEN = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
    "current_setting('application_name') AND state LIKE 'idle in transaction%'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx JOIN "
    "information_schema.processlist ON id = trx_mysql_thread_id WHERE db = database()",
}


def _open_transactions(using: str) -> int:
    """Count the transactions that are open in a database."""
    connection = connections.create_connection(using)
    try:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("PRAGMA busy_timeout = 0")
                cursor.execute("BEGIN EXCLUSIVE")  # fails where one is
                cursor.execute("COMMIT")
                return 0
            cursor.execute(OPEN[connection.vendor])
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


SESSIONS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
    "current_setting('application_name')",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database()",
}


def sessions(using: str) -> int:
    """Count the connections to a database."""
    if connections[using].vendor == "sqlite":
        path = os.path.realpath(connections[using].settings_dict["NAME"])
        found = list(Path("/proc/self/fd").iterdir())
        return sum(os.path.realpath(each) == path for each in found)
    with connections[using].cursor() as cursor:
        cursor.execute(SESSIONS[connections[using].vendor])
        return int(cursor.fetchone()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_no_connection_is_left_once_nothing_waits(send, using, broker):
    """With `CONN_MAX_AGE = 0`: neither of the outbox's own, nor what the broker used in between."""
    given = broker._send

    def ask(request: Any, body: bytes, **more: Any) -> Any:
        rows(using)  # as a broker in the database does
        return given(request, body, **more)

    broker._send = ask  # type: ignore[method-assign]
    rows(using)
    before = sessions(using)

    for number in range(3):
        send.dispatch(number)
        assert soon(lambda: rows(using) == 0)

    assert soon(lambda: sessions(using) == before)
    # It closes its connection before it ends.
    assert soon(lambda: not any("forward" in each.name for each in threading.enumerate()))


def test_a_lost_connection_stops_nothing(send, using, broker):
    """The database was restarted while rows waited for the broker: they leave all the same."""
    with broker.down():
        send.dispatch(1)
        assert soon(lambda: OutboxRow.objects.using(using).filter(tries__gt=0).exists())
        sever(get_dispatcher().store)
        send.dispatch(2)

    assert arrived(broker, 1, 2)
    assert settled(using)
