"""Brokers that are killed, stopped, filled, or whose queues are deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import dramatiq
import pytest
from dispatchers_dramatiq import DramatiqDispatcher
from dramatiq.common import dq_name, xq_name

from dispatchers import ConfigurationError, DispatchStatus, ErrorCategory
from dispatchers.testing import FaultProxy, Journal, tasks
from dispatchers.testing.servers import answers

from ..broker_cases import BrokerCases  # noqa: TID252 - as for the other cases
from .harness import DramatiqHarness, RabbitHarness, RedisHarness, message_of

HARNESSES = {"redis": RedisHarness, "rabbitmq": RabbitHarness}
_made: list[DramatiqDispatcher] = []


def dispatcher_of(url: str, **options: Any) -> DramatiqDispatcher:
    settings = {"breaker": False, "deadline": 1.0, "queue": f"broker-{uuid4().hex}", **options}
    dispatcher = DramatiqDispatcher(url=url, **settings)
    _made.append(dispatcher)
    return dispatcher


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    while _made:
        dispatcher = _made.pop()
        dispatcher.close()
        _delete_queues(dispatcher)
        dispatcher.broker.dramatiq.close()


def _names(dispatcher: DramatiqDispatcher) -> list[str]:
    return [f(name) for name in dispatcher.broker.own for f in (str, dq_name, xq_name)]


def _delete_queues(dispatcher: DramatiqDispatcher) -> None:
    """Leave nothing in a server that others share; a private one may be gone already."""
    broker, found = dispatcher.broker, urlsplit(dispatcher.options.url or "")
    if not answers(broker.kind, found.hostname or "", found.port or 0):
        return
    if broker.kind == "redis":
        keys = [f"dramatiq:{name}{end}" for name in _names(dispatcher) for end in ("", ".msgs")]
        broker.dramatiq.client.delete(*keys)
        broker.dramatiq.client.close()
        return
    channel = broker.dramatiq.connection.channel()
    for name in _names(dispatcher):
        channel.queue_delete(name)


def ids_in(dispatcher: DramatiqDispatcher) -> set[str]:
    """The ids of all messages that the broker has."""
    broker, name = dispatcher.broker, dispatcher.broker.default_queue
    if broker.kind == "redis":
        kept = broker.dramatiq.client.hvals(f"dramatiq:{name}.msgs")
        listed = broker.dramatiq.client.llen(f"dramatiq:{name}")
        assert listed == len(kept), "stored, and not in the queue"
        return {dramatiq.Message.decode(each).message_id for each in kept}
    found = set()
    channel = broker.dramatiq.connection.channel()
    while (got := channel.basic_get(name, auto_ack=True))[0] is not None:
        found.add(dramatiq.Message.decode(got[2]).message_id)
    channel.close()
    return found


class TestDramatiq(BrokerCases):
    def dispatcher_of(self, url: str) -> DramatiqDispatcher:
        return dispatcher_of(url)

    def ids_in(self, dispatcher: DramatiqDispatcher) -> set[str]:
        return ids_in(dispatcher)


@pytest.mark.parametrize("broker", HARNESSES)
def test_a_lost_reply_is_unknown(
    request: pytest.FixtureRequest, broker: str, tmp_path: Path
) -> None:
    """C3: done, and the answer lost: nobody knows, and nothing is repeated."""
    url = request.getfixturevalue(f"shared_{broker}")
    harness: DramatiqHarness = HARNESSES[broker](url, tmp_path)
    with FaultProxy(*harness.upstream) as proxy:
        dispatcher = harness.dispatcher_at(*proxy.address, deadline=0.5)
        work = tasks.note.options(dispatcher=dispatcher)
        assert work.dispatch("/nowhere").ok
        proxy.drop_reply()
        response = work.dispatch("/nowhere")
        proxy.heal()

    bodies = harness.received(harness.dispatcher())
    harness.end()
    assert response.status is DispatchStatus.UNKNOWN
    assert len([body for body in bodies if response.request_id.encode() in body]) == 1


@pytest.mark.parametrize("broker", HARNESSES)
def test_a_retry_that_cannot_be_published_goes_back(
    request: pytest.FixtureRequest, broker: str, tmp_path: Path
) -> None:
    """C9: the broker is gone when the next attempt is published: the delivery is not settled."""
    url = request.getfixturevalue(f"shared_{broker}")
    harness: DramatiqHarness = HARNESSES[broker](url, tmp_path)
    journal = Journal(tmp_path / "journal")
    good: Any = harness.dispatcher()
    tasks.fail.options(dispatcher=good).dispatch(journal.path, 1).raise_for_error()
    steps = harness._steps(good)
    with FaultProxy(*harness.upstream) as proxy:
        cut_off: Any = harness.dispatcher_at(*proxy.address, deadline=0.3)
        proxy.refuse()
        own, good.publisher = good.publisher, cut_off.publisher
        steps.run_next()
        good.publisher = own

    end = time.monotonic() + 30
    while not (left := harness.received(good)) and time.monotonic() < end:
        pass  # it comes back as a copy that is counted
    while "succeeded" not in journal.texts and time.monotonic() < end:
        harness.run_next(good)

    harness.end()
    assert len(left) == 1
    assert journal.texts == ["failed", "failed", "succeeded"]
    assert [entry.attempt for entry in journal.entries] == [1, 1, 2]


@pytest.mark.parametrize("broker", HARNESSES)
def test_a_delayed_message_that_cannot_be_moved_stays(
    request: pytest.FixtureRequest, broker: str, tmp_path: Path
) -> None:
    """C9: Dramatiq moves delayed messages unconfirmed; ours are settled once they have arrived."""
    url = request.getfixturevalue(f"shared_{broker}")
    harness: DramatiqHarness = HARNESSES[broker](url, tmp_path)
    journal = Journal(tmp_path / "journal")
    good: Any = harness.dispatcher()
    work = tasks.note.options(dispatcher=good, delay=timedelta(seconds=0.2))
    work.dispatch(journal.path, "late").raise_for_error()
    steps = harness._steps(good)
    steps.fetch()
    with FaultProxy(*harness.upstream) as proxy:
        cut_off: Any = harness.dispatcher_at(*proxy.address, deadline=0.3)
        proxy.refuse()
        own, good.publisher = good.publisher, cut_off.publisher
        time.sleep(0.3)
        steps.fetch()
        good.publisher = own

    left = harness.received(good)
    end = time.monotonic() + 30
    while not journal.texts and time.monotonic() < end:
        harness.run_next(good)

    harness.end()
    assert len(left) == 1
    assert journal.texts == ["late"]


@pytest.mark.parametrize("broker", HARNESSES)
def test_what_another_connection_received_is_not_settled_here(
    request: pytest.FixtureRequest, broker: str, tmp_path: Path
) -> None:
    """C9: RabbitMQ numbers deliveries per connection: a late answer would settle another's."""
    url = request.getfixturevalue(f"shared_{broker}")
    harness: DramatiqHarness = HARNESSES[broker](url, tmp_path)
    good: Any = harness.dispatcher()
    tasks.note.options(dispatcher=good).dispatch("/nowhere").raise_for_error()
    steps = harness._steps(good)
    steps.fetch()
    late = message_of(steps.worker.work_queue.get_nowait())
    harness.die(steps)
    harness.steps = None
    steps = harness._steps(good)
    while not steps.messages():
        pass

    steps.consumers[harness.queue].post_process_message(late)
    left = harness.received(good)

    harness.end()
    assert len(left) == 1


def test_what_was_fetched_and_never_arrived_comes_back(shared_redis: str, tmp_path: Path) -> None:
    """C9: on Redis a lost reply leaves messages with a worker that does not know of them."""
    harness = RedisHarness(shared_redis, tmp_path)
    dispatcher = harness.dispatcher()
    journal = Journal(tmp_path / "journal")
    steps = harness._steps(dispatcher)
    assert steps.run_next() is None
    tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, "found").raise_for_error()
    assert len(harness.broker.do_fetch(harness.queue, 10)) == 1
    assert steps.run_next() is None

    for each in steps.registration.unsettled.values():
        each.searched = 0.0
    steps.run_next()

    harness.end()
    assert journal.texts == ["found"]


def test_a_deleted_queue_is_declared_again(shared_rabbitmq: str) -> None:
    """A message to a deleted queue comes back; the queue that is configured is declared again."""
    dispatcher = dispatcher_of(shared_rabbitmq)
    work = tasks.note.options(dispatcher=dispatcher)
    assert work.dispatch("/nowhere").ok
    channel = dispatcher.broker.dramatiq.connection.channel()
    channel.queue_delete(dispatcher.broker.default_queue)

    response = work.dispatch("/nowhere")

    assert response.ok
    assert ids_in(dispatcher) == {response.request_id}


def test_a_queue_that_somebody_made_with_other_arguments_is_used(shared_rabbitmq: str) -> None:
    """Dramatiq's `send` raises there; the queue is there, and takes the message."""
    dispatcher = dispatcher_of(shared_rabbitmq)
    name = dispatcher.broker.default_queue
    channel = dispatcher.broker.dramatiq.connection.channel()
    channel.queue_declare(name, durable=True, arguments={"x-max-priority": 3})

    responses = [tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere") for _ in "ab"]

    assert [response.status for response in responses] == [DispatchStatus.ACCEPTED] * 2
    assert len(ids_in(dispatcher)) == 2


@pytest.mark.parametrize("broker", HARNESSES)
def test_a_mistyped_queue_is_refused(request: pytest.FixtureRequest, broker: str) -> None:
    """A queue that is declared nowhere is refused, not created."""
    dispatcher = dispatcher_of(request.getfixturevalue(f"shared_{broker}"), queues=["mail"])

    response = tasks.note.options(dispatcher=dispatcher, queue="mial").dispatch("/nowhere")

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.NOT_FOUND


def test_without_confirms_the_response_says_so(shared_rabbitmq: str) -> None:
    """C3: what is not confirmed is not called confirmed."""
    dispatcher = dispatcher_of(shared_rabbitmq, confirm=False)

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    end = time.monotonic() + 30
    while not (found := ids_in(dispatcher)) and time.monotonic() < end:
        time.sleep(0.01)

    assert response.ok
    assert not response.confirmed
    assert found == {response.request_id}


def test_priorities_are_the_brokers(shared_rabbitmq: str) -> None:
    """Ours, -100 to 100, on the scale of the queue; the highest is taken first."""
    dispatcher = dispatcher_of(shared_rabbitmq, max_priority=10)
    sent = {}
    for priority in (-100, 100, 0):
        work = tasks.note.options(dispatcher=dispatcher, priority=priority)
        sent[priority] = work.dispatch("/nowhere").raise_for_error().request_id

    channel = dispatcher.broker.dramatiq.connection.channel()
    got = [channel.basic_get(dispatcher.broker.default_queue, auto_ack=True) for _ in sent]
    channel.close()

    assert [properties.priority for _, properties, _ in got] == [10, 5, 0]
    ids = [dramatiq.Message.decode(body).message_id for *_, body in got]
    assert ids == [sent[100], sent[0], sent[-100]]


def test_a_wrong_password_is_told(shared_rabbitmq: str) -> None:
    """C4: `authentication`, and nothing was handed over."""
    dispatcher = dispatcher_of(shared_rabbitmq)
    wrong = DramatiqDispatcher(
        url=shared_rabbitmq.replace("guest:guest", "guest:wrong"), queue=dispatcher.options.queue
    )

    response = tasks.note.options(dispatcher=wrong).dispatch("/nowhere")
    wrong.close()

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.AUTHENTICATION
    assert "wrong" not in repr(response)


@pytest.mark.parametrize("options", [{}, {"url": "redis://x", "broker": "a:b"}])
def test_either_a_broker_or_an_address(options: dict[str, str]) -> None:
    """Neither, or both, is an error that says what to give."""
    with pytest.raises(ConfigurationError, match="give `broker`"):
        DramatiqDispatcher(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"url": "http://x"}, "begins with none of"), ({"broker": "json:dumps"}, "no Dramatiq")],
)
def test_what_is_no_broker_is_told(options: dict[str, str], words: str) -> None:
    """At construction, with the cure."""
    with pytest.raises(ConfigurationError, match=words):
        DramatiqDispatcher(**options)  # type: ignore[arg-type]
