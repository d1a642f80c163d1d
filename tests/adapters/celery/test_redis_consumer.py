"""Taking Celery's work from Redis: noted before the worker has it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from celery import Celery
from dispatchers_celery import CeleryDispatcher
from dispatchers_celery._redis_consumer import move_due, take_safely
from kombu import Queue
from kombu.transport.redis import Channel
from redis import Redis

from dispatchers.testing import tasks
from dispatchers.testing.servers import RedisServer

MAX_WAIT = 20.0
UNDECODABLE = (
    '{"properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"},'
    ' "body_encoding": "base64"}, "body": "abcde", "headers": {}}'
)
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # kombu closes no pool


@pytest.fixture
def server(private_redis: RedisServer) -> RedisServer:
    return private_redis


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


def app_at(url: str, **options: Any) -> Celery:
    app = Celery("taking", broker=url)
    app.conf.broker_transport_options = {"priority_steps": [0, 5], **options}
    take_safely(app)
    return app


def published(app: Celery, queue: str, text: str, priority: int = 0) -> None:
    with app.connection_for_write() as connection, connection.SimpleQueue(queue) as simple:
        simple.put(text, priority=priority)


def taken(app: Celery, *queues: str, count: int = 1, settle: bool = True, **how: Any) -> list[str]:
    """The texts of the next messages."""
    texts: list[str] = []

    def take(body: str, message: Any) -> None:
        texts.append(body)
        if settle:
            message.ack()

    with app.connection_for_read() as connection:
        named = [Queue(name, routing_key=name) for name in queues]
        with connection.Consumer(named, callbacks=[take], **how):
            until = time.monotonic() + MAX_WAIT
            while len(texts) < count and time.monotonic() < until:
                try:
                    connection.drain_events(timeout=1)
                except TimeoutError:
                    continue
    return texts


def asked(app: Celery, queue: str) -> Any:
    """A channel that has asked for work, and has not read the answer."""
    connection = app.connection_for_read()
    channel: Any = connection.channel()
    channel.client.connection = channel.client.connection_pool.get_connection()
    channel.basic_consume(queue, False, lambda _: None, "tag")
    channel._brpop_start()
    return channel


def popped(client: Redis, queue: str) -> None:
    """Wait until the queue is empty."""
    until = time.monotonic() + MAX_WAIT
    while client.llen(queue) and time.monotonic() < until:
        time.sleep(0.01)


def test_what_was_taken_is_noted_before_the_worker_knows_of_it(
    server: RedisServer, client: Redis
) -> None:
    """C9: a worker that dies between Redis's answer and its own next step has lost nothing."""
    app = app_at(server.url)
    published(app, "q", "kept")

    channel = asked(app, "q")
    popped(client, "q")
    channel.client.connection.disconnect()  # as a kill does: nothing is read

    assert client.llen("q") == 0
    assert client.hlen("unacked") == client.zcard("unacked_index") == 1


def test_what_was_noted_is_given_to_another_worker(server: RedisServer, client: Redis) -> None:
    """C9: the note is one that kombu restores when the visibility timeout is over."""
    app = app_at(server.url, visibility_timeout=0.1, unacked_restore_throttle=1)
    published(app, "q", "kept")
    died = asked(app, "q")
    popped(client, "q")
    died.client.connection.disconnect()
    time.sleep(0.2)  # the visibility timeout

    died.qos.restore_visible(interval=1)
    texts = taken(app, "q")

    assert texts == ["kept"]


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_every_queue_and_priority_is_served(
    server: RedisServer, client: Redis, prefix: str
) -> None:
    """C6: work in whichever list comes, the more urgent first, and is settled."""
    app = app_at(server.url, global_keyprefix=prefix)
    for queue, priority in (("one", 5), ("two", 5), ("two", 0)):
        published(app, queue, f"{queue} {priority}", priority)

    texts = taken(app, "one", "two", count=3)

    assert texts[0] == "two 0"
    assert sorted(texts) == ["one 5", "two 0", "two 5"]
    assert client.hlen(f"{prefix}unacked") == 0


def test_a_consumer_that_settles_nothing_leaves_no_note(server: RedisServer, client: Redis) -> None:
    """A message taken with `no_ack` is not given back."""
    app = app_at(server.url)
    published(app, "q", "gone")

    texts = taken(app, "q", settle=False, no_ack=True)

    assert texts == ["gone"]
    assert client.hlen("unacked") == 0


def test_waiting_takes_nothing(server: RedisServer, client: Redis) -> None:
    """A worker that waits is answered when there is work, which stays where it was."""
    app = app_at(server.url)
    channel = asked(app, "q")
    with pytest.raises(Empty):
        channel._brpop_read()

    published(app, "q", "one")
    published(app, "q", "two")
    with pytest.raises(Empty):
        channel._brpop_read()
    channel.client.connection.disconnect()

    assert client.llen("q") == 2
    assert taken(app, "q", count=2) == ["one", "two"]


def test_a_server_that_forbids_scripts_is_served_in_kombus_way(
    server: RedisServer, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """C9: who may not is told what that costs, and works all the same."""
    client.execute_command(
        "ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-eval", "-evalsha"
    )
    app = app_at(server.url.replace("redis://", "redis://plain:secret@"))
    published(app, "q", "all the same")

    with caplog.at_level(logging.WARNING, "dispatchers"):
        texts = taken(app, "q")

    assert texts == ["all the same"]
    assert "this Redis lets no worker take work safely" in caplog.text


@pytest.mark.parametrize(
    "foreign",
    [
        "hello",
        "{}",
        '{"properties": {"delivery_info": {}}}',
        '{"properties": {"delivery_tag": "t", "delivery_info": {}}, "body": "x", "headers": {}}',
        UNDECODABLE,
    ],
)
def test_a_foreign_element_is_set_aside(
    server: RedisServer, client: Redis, caplog: pytest.LogCaptureFixture, foreign: str
) -> None:
    """C9: what is no message is kept beside the queue, told, and stops no worker."""
    app = app_at(server.url)
    client.lpush("q", foreign)
    published(app, "q", "after it")

    with caplog.at_level(logging.ERROR, "dispatchers"):
        texts = taken(app, "q")

    assert texts == ["after it"]
    assert client.lrange("q.foreign", 0, -1) == [foreign.encode()]
    assert client.hlen("unacked") == client.zcard("unacked_index") == 0
    assert "q.foreign" in caplog.text


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_a_delayed_message_waits_beside_its_queue(
    server: RedisServer, client: Redis, prefix: str
) -> None:
    """C6: delayed work is in no worker's memory, and comes to its queue when it is due."""
    app: Any = app_at(server.url, global_keyprefix=prefix)
    app.conf.task_default_queue = "q"
    dispatcher = CeleryDispatcher(app=app)
    soon = tasks.note.options(dispatcher=dispatcher, delay=timedelta(seconds=1.2))
    late = tasks.note.options(dispatcher=dispatcher, delay=timedelta(hours=1)).batch()
    late.add("/nowhere")
    late.add("/nowhere")

    soon.dispatch("/nowhere").raise_for_error()
    late.dispatch().raise_for_error()
    with app.connection_for_read() as connection:
        channel = connection.channel()
        move_due(channel, ["q"])
        before = client.llen(f"{prefix}q"), client.zcard(f"{prefix}q.dispatchers-delayed")
        time.sleep(1.2)
        move_due(channel, ["q"])
    stats = dispatcher.stats()[0]
    dispatcher.close()

    assert before == (0, 3)
    assert client.llen(f"{prefix}q") == 1
    assert (stats.waiting, stats.delayed) == (1, 2)


def test_settings_that_lose_work_are_told(server: RedisServer, client: Redis) -> None:
    """C3: a Redis that evicts work is no durable one: the response and `doctor` say so."""
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    dispatcher = CeleryDispatcher(url=server.url)

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    dispatcher.check(contact=True)
    dispatcher.close()

    assert response.ok
    assert response.durable is False
    assert any("maxmemory-policy" in warning for warning in dispatcher.warnings)


def test_a_connection_keeps_its_client(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kombu's own makes a client of redis-py for each message; each still has an id of its own."""
    dispatcher = CeleryDispatcher(url=server.url, queue="kept")
    request = tasks.note.request(str(tmp_path / "journal"))
    dispatcher.dispatch(request).raise_for_error()
    made: list[object] = []
    create = Channel._create_client
    monkeypatch.setattr(
        Channel, "_create_client", lambda self, *given: (made.append(self), create(self, *given))[1]
    )

    assert all(dispatcher.dispatch(request) for _ in range(3))
    dispatcher.close()

    with Redis.from_url(server.url) as client:
        found = [json.loads(each) for each in client.lrange("kept", 0, -1)]
    assert len({each["properties"]["delivery_tag"] for each in found}) == 4
    assert made == []
