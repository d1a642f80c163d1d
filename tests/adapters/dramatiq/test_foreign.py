"""What other programs put into the queues, and what callers name: neither stops a worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import pika
import pytest
from dispatchers_dramatiq import DramatiqDispatcher, native
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import xq_name

from dispatchers import ConfigurationError, override
from dispatchers.testing import Journal, tasks

from .harness import DramatiqHarness, RabbitHarness, RedisHarness

GOOD = {
    "queue_name": "",
    "actor_name": "x",
    "args": [],
    "kwargs": {},
    "options": {"redis_message_id": ""},
    "message_id": "1",
    "message_timestamp": 1,
}
ODD: dict[str, Callable[[str, str], bytes]] = {
    "text": lambda queue, key: b"hello",
    "a list": lambda queue, key: b"[1, 2]",
    "another object": lambda queue, key: b'{"task": "celery"}',
    "nothing": lambda queue, key: b"",
    "binary": lambda queue, key: b"\x80\x04\x95\x00\xff",
    "another queue": lambda queue, key: _odd("elsewhere", key),
    "a list as id": lambda queue, key: _odd(queue, key, message_id=["a"]),
    "options that are text": lambda queue, key: _odd(queue, key, options="none"),
    "an actor that is a list": lambda queue, key: _odd(queue, key, actor_name=["x"]),
    "kwargs that are null": lambda queue, key: _odd(queue, key, kwargs=None),
    "a time that is text": lambda queue, key: _odd(queue, key, message_timestamp="now"),
}


def _odd(queue: str, key: str, **changed: Any) -> bytes:
    fields = {**GOOD, "queue_name": queue, "options": {"redis_message_id": key}, **changed}
    return json.dumps(fields).encode()


def on_redis(harness: Any, data: bytes, key: str) -> None:
    client, name = harness.broker.client, f"{harness.namespace}:{harness.queue}"
    client.hset(f"{name}.msgs", key, data)
    client.rpush(name, key)


def on_rabbitmq(harness: Any, data: bytes) -> None:
    harness.broker.declare_queue(harness.queue, ensure=True)
    with pika.BlockingConnection(harness.broker.parameters) as connection:
        connection.channel().basic_publish("", harness.queue, data)


def run_to_the_end(harness: DramatiqHarness, dispatcher: Any, journal: Journal) -> None:
    for _ in range(50):
        harness.run_next(dispatcher)
        if journal.texts:
            return


@pytest.mark.parametrize("odd", ODD)
def test_a_foreign_element_of_a_redis_queue_is_set_aside(
    shared_redis: str, tmp_path: Path, odd: str
) -> None:
    """C11: what is behind it runs, and it is in the dead letters of Dramatiq, not lost."""
    harness = RedisHarness(shared_redis, tmp_path)
    journal = Journal(tmp_path / "journal")
    dispatcher = harness.dispatcher()
    data = ODD[odd](harness.queue, "foreign")
    on_redis(harness, data, "foreign")
    harness.broker.client.rpush(f"{harness.namespace}:{harness.queue}", "no such key")
    tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, "ran").raise_for_error()

    run_to_the_end(harness, dispatcher, journal)
    harness.run_next(dispatcher)
    dead = harness.broker.client.hgetall(f"{harness.namespace}:{harness.queue}.XQ.msgs")
    left = harness.broker.client.hlen(f"{harness.namespace}:{harness.queue}.msgs")

    harness.end()
    assert journal.texts == ["ran"]
    assert dead == {b"foreign": data}
    assert left == 0


@pytest.mark.parametrize("odd", ODD)
def test_a_foreign_element_of_a_rabbitmq_queue_is_set_aside(
    shared_rabbitmq: str, tmp_path: Path, odd: str
) -> None:
    """C11: what is behind it runs, and it is in the dead letters of Dramatiq, not lost."""
    harness = RabbitHarness(shared_rabbitmq, tmp_path)
    journal = Journal(tmp_path / "journal")
    dispatcher = harness.dispatcher()
    data = ODD[odd](harness.queue, "foreign")
    on_rabbitmq(harness, data)
    tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, "ran").raise_for_error()

    run_to_the_end(harness, dispatcher, journal)
    harness.run_next(dispatcher)
    channel = harness.broker.connection.channel()
    found = None
    for _ in range(100):
        found = channel.basic_get(xq_name(harness.queue), auto_ack=True)[2]
        if found is not None:
            break
        harness.run_next(dispatcher)

    harness.end()
    assert journal.texts == ["ran"]
    assert found == data


@pytest.mark.parametrize("queue", ["mail.DQ", "mail.XQ", "mail.msgs", "__acks__", "q.dispatchers"])
def test_a_queue_with_a_name_of_dramatiqs_own_is_refused(queue: str) -> None:
    """C12: at the start where it is configured, before contact where a request names it."""
    broker: Any = StubBroker()
    broker.declare_queue("mail")

    with pytest.raises(ConfigurationError, match="name of Dramatiq's own"):
        DramatiqDispatcher(broker=broker, queues=[queue])
    dispatcher = DramatiqDispatcher(broker=broker, queue="mail")
    response = tasks.note.options(dispatcher=dispatcher, queue=queue).dispatch("/nowhere")

    assert response.status == "rejected"


@pytest.mark.parametrize("name", ["eta", "max_retries", "max_age", "redis_message_id"])
def test_headers_do_not_reach_dramatiqs_options(name: str, tmp_path: Path) -> None:
    """A caller's header has the same effect on every backend: it is on the request."""
    broker: Any = StubBroker()
    dispatcher = DramatiqDispatcher(broker=broker, queue="q")

    work = tasks.note.options(dispatcher=dispatcher, headers={name: "soon"})
    work.dispatch("/nowhere").raise_for_error()

    message = dramatiq.Message.decode(broker.queues["q"].get())
    assert message.options.get(name) != "soon"


def test_native_work_goes_to_its_actors_queue() -> None:
    """The actor's queue decides, for a name as for the actor; an option beats it."""
    broker: Any = StubBroker()

    @dramatiq.actor(broker=broker, actor_name="shop.resize", queue_name="media")
    def resize() -> None: ...

    with override(default=DramatiqDispatcher(broker=broker, queue="other")):
        native("shop.resize").dispatch().raise_for_error()
        native(resize).dispatch().raise_for_error()
        native("shop.resize", queue="other").dispatch().raise_for_error()

    assert broker.queues["media"].qsize() == 2
    assert broker.queues["other"].qsize() == 1


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "127.0.0.1:5672",
        "AMQP://guest:hunter2@localhost",
        "amqp:/guest:hunter2@localhost",
        "amqp://guest:hunter2#x@localhost",
        "amqp://guest:hunter2@localhost:56x72",
        "amqp://guest:hunter2@localhost/a/b",
        "amqp://guest:hunter2@localhost/%2F?nope=1",
        "amqp://localhost;redis://localhost",
        "amqp://",
        "redis+sentinel://:hunter2@localhost",
        "redis://:hunter2/x@localhost",
        "redis://localhost/zero",
        "memory://",
    ],
)
def test_an_address_is_used_as_it_is_or_refused(url: str) -> None:
    """C12: with alias and option, and without a part of what could not be read."""
    with pytest.raises(ConfigurationError) as caught:
        DramatiqDispatcher(url=url, alias="mails")

    assert "'mails'" in str(caught.value)
    assert "url" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_several_servers_are_all_used(shared_rabbitmq: str) -> None:
    """Dramatiq's own way to name several, `;`: the second answers where the first does not."""
    dead = "amqp://guest:guest@127.0.0.1:1"
    dispatcher = DramatiqDispatcher(
        url=f"{dead};{shared_rabbitmq}", queue=f"servers-{uuid4().hex}", deadline=5.0
    )

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    name = dispatcher.broker.default_queue
    with pika.BlockingConnection(dispatcher.broker.dramatiq.parameters[1]) as connection:
        channel = connection.channel()
        for each in (name, f"{name}.DQ", f"{name}.XQ"):
            channel.queue_delete(each)
    dispatcher.close()
    assert response.status == "accepted"


class Recorder(dramatiq.Middleware):
    """A middleware that keeps a row for each message, as django_dramatiq's admin does."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, bool]] = []

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        message.options["traced"] = "abc"

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        row = (message.actor_name, message.message_id, message.queue_name, delay is not None)
        self.rows.append(row)


def test_middleware_is_told_of_what_is_handed_over(tmp_path: Path) -> None:
    """Its rows are there before a run begins, for each attempt; its options travel with them."""
    broker: Any = StubBroker()
    recorder = Recorder()
    broker.add_middleware(recorder)
    dispatcher = DramatiqDispatcher(broker=broker, queue="q")

    now = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").raise_for_error()
    later = tasks.note.options(dispatcher=dispatcher, delay=timedelta(minutes=1)).dispatch(
        "/nowhere"
    )

    assert recorder.rows == [
        ("dispatchers.testing.note", now.task_id, "q", False),
        ("dispatchers.testing.note", later.raise_for_error().task_id, "q.DQ", True),
    ]
    assert dramatiq.Message.decode(broker.queues["q"].get()).options["traced"] == "abc"


def test_an_eager_stub_broker_runs_tasks_in_the_call_too(tmp_path: Path) -> None:
    """C3: what its test mode promises holds for our tasks: `executed` or `failed`, all attempts."""
    journal = Journal(tmp_path / "journal")
    dispatcher = DramatiqDispatcher(broker=StubBroker(), eager=True, queue="q")

    good = tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, "ran")
    bad = tasks.fail.options(dispatcher=dispatcher, max_attempts=2).dispatch(journal.path, 9)

    assert good.status == "executed"
    assert bad.status == "failed"
    assert journal.texts[0] == "ran"
    assert len(journal.texts) == 3
