"""Brokers that are killed, stopped, filled, or whose queues are deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery.contrib.testing.worker import start_worker
from dispatchers_celery import CeleryDispatcher, _connection, _rabbitmq, register
from kombu import Exchange, Queue

from dispatchers import ConfigurationError, DispatchStatus, ErrorCategory
from dispatchers.testing import FaultProxy, Journal, tasks
from dispatchers.testing.servers import answers

from ..broker_cases import BrokerCases  # noqa: TID252 - as for the other cases
from .harness import CeleryHarness, application, delete_queues

DELAY = timedelta(seconds=1.5)
_made: list[CeleryDispatcher] = []


def dispatcher_of(url: str, **options: Any) -> CeleryDispatcher:
    settings = {"breaker": False, "deadline": 1.0, "queue": f"broker-{uuid4().hex}", **options}
    dispatcher = CeleryDispatcher(url=url, **settings)
    _made.append(dispatcher)
    return dispatcher


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    while _made:
        dispatcher = _made.pop()
        dispatcher.close()
        _delete_queue(dispatcher)


def _delete_queue(dispatcher: CeleryDispatcher) -> None:
    """Leave nothing in a server that others share; a private one may be gone already."""
    app: Any = dispatcher.broker.app
    host, _, port = dispatcher.broker.address.partition(":")
    if answers(dispatcher.broker.kind.replace("amqp", "rabbitmq"), host, int(port or 0)):
        delete_queues(app, app.conf.task_default_queue)


def ids_in(dispatcher: CeleryDispatcher) -> set[str]:
    """The ids of all messages that the broker has."""
    app: Any = dispatcher.broker.app
    found = set()
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue](connection.channel())
        queue.declare()
        while (message := queue.get(no_ack=True)) is not None:
            found.add(message.headers["id"])
    return found


class TestCelery(BrokerCases):
    def dispatcher_of(self, url: str) -> CeleryDispatcher:
        return dispatcher_of(url)

    def ids_in(self, dispatcher: CeleryDispatcher) -> set[str]:
        return ids_in(dispatcher)


def test_a_lost_reply_is_unknown(shared_redis: str) -> None:
    """C3: executed, and the answer lost: the outcome is unknown, and nothing is repeated."""
    harness = CeleryHarness(shared_redis, Path("/nowhere"))
    with FaultProxy(*harness.upstream) as proxy:
        dispatcher = harness.connect(*proxy.address, breaker=False, deadline=0.5)
        work = tasks.note.options(dispatcher=dispatcher)
        assert work.dispatch("/nowhere").ok
        proxy.drop_reply()
        response = work.dispatch("/nowhere")
        proxy.heal()
        dispatcher.close()

    bodies = harness.received(dispatcher)
    harness.close()
    assert response.status is DispatchStatus.UNKNOWN
    assert len([body for body in bodies if response.request_id.encode() in body]) == 1


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_retry_that_cannot_be_published_goes_back(
    request: pytest.FixtureRequest, broker: str, tmp_path: Path
) -> None:
    """C9: the broker is gone when the next attempt is published: the delivery is not settled."""
    harness = CeleryHarness(request.getfixturevalue(f"shared_{broker}"), tmp_path)
    journal = Journal(tmp_path / "journal")
    good = harness.dispatcher()
    tasks.fail.options(dispatcher=good).dispatch(journal.path, 1).raise_for_error()
    with FaultProxy(*harness.upstream) as proxy:
        cut_off = harness.dispatcher_at(*proxy.address, deadline=0.3)
        proxy.refuse()
        harness.run_next(cut_off)

    left = harness.received(good)
    end = time.monotonic() + 20
    while "succeeded" not in journal.texts and time.monotonic() < end:
        harness.run_next(good)

    harness.end()
    assert len(left) == 1
    assert journal.texts == ["failed", "failed", "succeeded"]
    assert [entry.attempt for entry in journal.entries] == [1, 1, 2]


@pytest.mark.slow
def test_what_failed_for_good_goes_to_the_queues_dead_letter_exchange(
    shared_rabbitmq: str, tmp_path: Path
) -> None:
    """C9: RabbitMQ's own place for it, where the application's queue names one."""
    name = f"broker-{uuid4().hex}"
    app: Any = application(shared_rabbitmq, name, worker_hijack_root_logger=False)
    dead = Queue(f"{name}.dead", Exchange(""), routing_key=f"{name}.dead")
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name}
    app.conf.task_queues = [Queue(name, queue_arguments=arguments)]
    dispatcher = CeleryDispatcher(app=app)
    _made.append(dispatcher)
    register(app, dispatcher)
    with app.connection_for_read() as connection:
        buried = dead(connection.channel())
        buried.declare()
        response = tasks.fail.options(dispatcher=dispatcher, max_attempts=1).dispatch(
            str(tmp_path / "journal"), 9
        )
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            end = time.monotonic() + 20
            while (message := buried.get(no_ack=True)) is None and time.monotonic() < end:
                time.sleep(0.05)
        buried.delete()

    assert message is not None
    assert message.headers["id"] == response.request_id


def test_a_deleted_queue_is_declared_again(shared_rabbitmq: str) -> None:
    """A message to a deleted queue comes back; the queue that is configured is declared again."""
    dispatcher = dispatcher_of(shared_rabbitmq)
    work = tasks.note.options(dispatcher=dispatcher)
    assert work.dispatch("/nowhere").ok
    app: Any = dispatcher.broker.app
    with app.connection_for_read() as connection:
        connection.channel().queue_delete(app.conf.task_default_queue)

    response = work.dispatch("/nowhere")

    assert response.ok
    assert ids_in(dispatcher) == {response.request_id}


def test_what_is_due_for_deleted_queues_is_in_nobodys_way(shared_rabbitmq: str) -> None:
    """It is set aside: with 32 such messages RabbitMQ's delay queues would stand still for all."""
    gone, there = (dispatcher_of(shared_rabbitmq, deadline=10.0) for _ in range(2))
    work = tasks.note.options(dispatcher=gone, delay=DELAY)
    lost = {work.dispatch("/nowhere").request_id for _ in range(40)}
    _delete_queue(gone)

    response = tasks.note.options(dispatcher=there, delay=DELAY).dispatch("/nowhere")

    assert response.ok
    assert _came(there, {response.request_id}, there.options.queue)
    assert _came(gone, lost, "celery_delayed_undeliverable")


def _came(dispatcher: CeleryDispatcher, wanted: set[str], name: str) -> bool:
    """Take messages from a queue until all that are wanted have come, for half a minute."""
    app: Any = dispatcher.broker.app
    end = time.monotonic() + 30
    with app.connection_for_read() as connection:
        channel = connection.channel()
        while wanted and time.monotonic() < end:
            message = channel.basic_get(name, no_ack=True)
            if message is None:
                time.sleep(0.05)
            else:
                wanted = wanted - {message.headers["id"]}
    return not wanted


def test_a_queue_that_is_made_anew_gets_what_is_delayed(
    shared_rabbitmq: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue loses its bindings when it is deleted: a process that lives on binds it again."""
    monkeypatch.setattr(_rabbitmq, "BOUND_FOR", 0.0)
    dispatcher = dispatcher_of(shared_rabbitmq)
    work = tasks.note.options(dispatcher=dispatcher, delay=DELAY)
    assert work.dispatch("/nowhere").ok
    _delete_queue(dispatcher)

    response = work.dispatch("/nowhere")

    assert response.ok
    assert _came(dispatcher, {response.request_id}, dispatcher.options.queue)


def test_a_broker_that_was_made_anew_holds_what_is_delayed(
    shared_rabbitmq: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binding a queue again does not declare all; where that fails, the next time does."""
    monkeypatch.setattr(_rabbitmq, "BOUND_FOR", 0.0)
    monkeypatch.setattr(_rabbitmq, "CELERY_DELAYED_DELIVERY_EXCHANGE", f"gone-{uuid4().hex}")
    levels: list[object] = []
    monkeypatch.setattr(
        _rabbitmq,
        "declare_native_delayed_delivery_exchanges_and_queues",
        lambda connection, kind: levels.append(kind),
    )
    publisher: Any = dispatcher_of(shared_rabbitmq).publisher
    app: Any = publisher._broker.app
    draft: Any = SimpleNamespace(queue=app.amqp.queues[app.conf.task_default_queue])
    publisher._bound[draft.queue.name] = 0.0

    held = [publisher._can_hold(draft, time.monotonic() + 10) for _ in range(2)]

    assert held == [False, False]
    assert len(levels) == 1
    assert not publisher._holds


def test_a_queue_that_somebody_made_with_other_arguments_is_used(shared_rabbitmq: str) -> None:
    """Celery's `delay` raises there; the queue is there, and takes the message."""
    name = f"broker-{uuid4().hex}"
    dispatcher = dispatcher_of(shared_rabbitmq, queue=name)
    app: Any = dispatcher.broker.app
    with app.connection_for_read() as connection:
        Queue(name, Exchange(name), name, queue_arguments={"x-max-priority": 3})(
            connection.channel()
        ).declare()
        responses = [tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere") for _ in "ab"]
        found = connection.channel().queue_declare(queue=name, passive=True).message_count

    assert [response.status for response in responses] == [DispatchStatus.ACCEPTED] * 2
    assert found == 2


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_mistyped_queue_is_refused(request: pytest.FixtureRequest, broker: str) -> None:
    """A queue that is declared nowhere is refused, not created."""
    dispatcher = dispatcher_of(request.getfixturevalue(f"shared_{broker}"), queues=["mail"])

    response = tasks.note.options(dispatcher=dispatcher, queue="mial").dispatch("/nowhere")

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.NOT_FOUND
    assert "mail" in response.error.message


def test_without_confirms_the_response_says_so(shared_rabbitmq: str) -> None:
    """C3: what is not confirmed is not called confirmed."""
    dispatcher = dispatcher_of(shared_rabbitmq, confirm=False)

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    assert response.ok
    assert not response.confirmed
    assert ids_in(dispatcher) == {response.request_id}


def test_the_users_application_is_left_as_it_is(shared_rabbitmq: str) -> None:
    """Bounds are set on our own connection, not on the application."""
    app: Any = application(shared_rabbitmq, f"broker-{uuid4().hex}", task_time_limit=5)
    before = dict(app.conf.broker_transport_options), set(app.amqp.queues)
    dispatcher = CeleryDispatcher(app=app, queues=["other"])
    _made.append(dispatcher)

    tasks.note.options(dispatcher=dispatcher, queue="other").dispatch("/nowhere").raise_for_error()

    assert (dict(app.conf.broker_transport_options), set(app.amqp.queues)) == before
    with app.connection_for_read() as connection:
        connection.channel().queue_delete("other")


@pytest.mark.parametrize("options", [{}, {"url": "redis://x", "app": "a:b"}])
def test_either_an_application_or_an_address(options: dict[str, str]) -> None:
    """Neither, or both, is an error that says what to give."""
    with pytest.raises(ConfigurationError, match="give `app`"):
        CeleryDispatcher(**options)  # type: ignore[arg-type]


def test_a_broker_that_hangs_keeps_no_other_one_from_connecting(
    shared_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2: connects that hang are counted for each server, and refuse that one alone."""
    released = threading.Event()
    connecting = _connection.KombuConnection.__init__

    def hangs(self: Any, broker: Any, address: Any, timeout: float) -> None:
        if address.hostname == "127.0.0.2":
            released.wait(30)
        connecting(self, broker, address, timeout)

    monkeypatch.setattr(_connection.KombuConnection, "__init__", hangs)
    down = dispatcher_of("redis://127.0.0.2:1/0", deadline=0.05)
    up = dispatcher_of(shared_redis, deadline=5.0)

    said = [down.dispatch(tasks.note.request("/nowhere")) for _ in range(9)]
    response = up.dispatch(tasks.note.request("/nowhere"))
    released.set()

    assert {each.status for each in said} == {DispatchStatus.REJECTED}
    assert response.ok


def test_a_window_is_kept_by_workers_on_redis(shared_redis: str, shared_rabbitmq: str) -> None:
    """C9: work of a dead worker comes again soon after it; kombu's own is an hour."""
    options: Any = dispatcher_of(shared_redis, window=30).broker.app.conf.broker_transport_options

    assert options["visibility_timeout"] == 30
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] <= 10
    for untouched in (dispatcher_of(shared_redis), dispatcher_of(shared_rabbitmq, window=30)):
        app: Any = untouched.broker.app
        assert not app.conf.broker_transport_options


def test_a_window_changes_nothing_of_an_application(shared_redis: str) -> None:
    """The application's own workers keep to its own settings."""
    app: Any = application(shared_redis, f"broker-{uuid4().hex}")

    CeleryDispatcher(app=app, window=30)

    assert not app.conf.broker_transport_options
