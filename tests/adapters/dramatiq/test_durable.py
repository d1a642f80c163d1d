"""What a broker's own settings make of accepted work; sizes, batches and figures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dispatchers_dramatiq import DramatiqDispatcher
from dramatiq.brokers.stub import StubBroker

from dispatchers import ErrorCategory, RejectedError
from dispatchers.testing import tasks
from dispatchers.testing.conformance._tools import answered
from dispatchers.testing.servers import RedisServer

from .harness import RabbitHarness, RedisHarness, Steps


@pytest.fixture
def rabbit(shared_rabbitmq: str, tmp_path: Path) -> Iterator[RabbitHarness]:
    harness = RabbitHarness(shared_rabbitmq, tmp_path)
    yield harness
    harness.end()


@pytest.fixture
def redis(shared_redis: str, tmp_path: Path) -> Iterator[RedisHarness]:
    harness = RedisHarness(shared_redis, tmp_path)
    yield harness
    harness.end()


def channel_of(harness: RabbitHarness) -> Any:
    return harness.broker.connection.channel()


def test_work_in_a_queue_that_is_not_durable_is_not_durable(rabbit: RabbitHarness) -> None:
    """C9: the response does not claim what a restart of RabbitMQ would refute."""
    channel_of(rabbit).queue_declare(rabbit.queue, durable=False)

    dispatcher = rabbit.dispatcher()
    work = tasks.note.options(dispatcher=dispatcher)
    now = work.dispatch("/nowhere").raise_for_error()
    delayed = work.options(delay=timedelta(hours=1)).dispatch("/nowhere").raise_for_error()

    assert now.durable is False
    assert delayed.durable is True


@pytest.mark.parametrize(
    ("arguments", "durable", "words"),
    [
        ({}, False, "is not durable"),
        ({"x-message-ttl": 60_000}, True, "after 60 s"),
        ({"x-max-length": 10}, True, "beyond 10 messages"),
    ],
)
def test_the_check_says_what_rabbitmq_loses(
    rabbit: RabbitHarness, arguments: dict[str, Any], durable: bool, words: str
) -> None:
    """C12: `doctor --contact` reads what the queue's settings make of "durable"."""
    channel_of(rabbit).queue_declare(rabbit.queue, durable=durable, arguments=arguments)

    dispatcher: Any = rabbit.dispatcher()
    dispatcher.check(contact=True)

    assert [warning for warning in dispatcher.warnings if words in warning]


def test_the_check_and_the_response_say_what_redis_loses() -> None:
    """C9, C12: a server that keeps nothing on disk, or deletes work when it is full."""
    with RedisServer(keeps="nothing", settings={"maxmemory-policy": "allkeys-lru"}) as server:
        dispatcher = DramatiqDispatcher(url=server.url, queue="q", breaker=False)
        response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
        dispatcher.check(contact=True)
        dispatcher.close()

    assert response.status == "accepted"
    assert response.durable is False
    assert any("appendonly" in warning for warning in dispatcher.warnings)


@pytest.mark.slow
def test_a_message_above_rabbitmqs_limit_is_too_large(rabbit: RabbitHarness) -> None:
    """C4: the broker has said no: rejected, and not for another try."""
    dispatcher = rabbit.dispatcher(deadline=60.0)
    large = tasks.note.options(dispatcher=dispatcher)

    response = large.dispatch("/nowhere", "x" * (129 << 20))

    assert response.error is not None
    assert response.status == "rejected"
    assert response.error.category is ErrorCategory.TOO_LARGE
    assert not response.error.retryable


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_batch_of_any_size_keeps_its_deadline(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """C2: what the deadline leaves no time for was certainly not handed over."""
    url = request.getfixturevalue(f"shared_{kind}")
    harness = (RedisHarness if kind == "redis" else RabbitHarness)(url, tmp_path)
    request.addfinalizer(harness.end)
    dispatcher = harness.dispatcher()
    items = [(tasks.note.request("/nowhere"), b"{}") for _ in range(20_000)]
    dispatcher._send_many(items[:1], timeout=5.0)

    answers = answered(0.2, lambda: dispatcher._send_many(items, timeout=0.2))

    assert len(answers) == 20_000
    assert isinstance(answers[-1], RejectedError)
    assert answers[-1].category is ErrorCategory.TIMEOUT


def test_figures_of_redis(redis: RedisHarness) -> None:
    """Waiting, delayed, in a worker's hands, dead, and the age of the head of the queue."""
    dispatcher: Any = redis.dispatcher()
    work = tasks.note.options(dispatcher=dispatcher)
    for _ in range(3):
        work.dispatch("/nowhere").raise_for_error()
    work.options(delay=timedelta(hours=1)).dispatch("/nowhere").raise_for_error()
    redis.broker.do_fetch(redis.queue, 1)

    (stats,) = [each for each in dispatcher.stats() if each.queue == redis.queue]

    assert (stats.waiting, stats.running, stats.delayed, stats.dead) == (2, 1, 1, 0)
    assert 0 <= stats.oldest < 60


def test_figures_of_rabbitmq(rabbit: RabbitHarness) -> None:
    """What is ready; None for what AMQP does not tell."""
    dispatcher: Any = rabbit.dispatcher()
    work = tasks.note.options(dispatcher=dispatcher)
    for _ in range(3):
        work.dispatch("/nowhere").raise_for_error()

    (stats,) = [each for each in dispatcher.stats() if each.queue == rabbit.queue]

    assert (stats.waiting, stats.running, stats.delayed, stats.oldest) == (3, None, None, None)


def test_figures_of_the_stub() -> None:
    """What this process has."""
    dispatcher = DramatiqDispatcher(broker=StubBroker(), queue="q")
    work = tasks.note.options(dispatcher=dispatcher)
    work.dispatch("/nowhere").raise_for_error()
    work.options(delay=timedelta(hours=1)).dispatch("/nowhere").raise_for_error()

    (stats,) = [each for each in dispatcher.stats() if each.queue == "q"]

    assert (stats.waiting, stats.delayed, stats.dead) == (1, 1, 0)


def test_what_was_fetched_and_not_handed_out_is_no_delivery(redis: RedisHarness) -> None:
    """C10: a worker that stops gives back what it counted while fetching, as it was."""
    dispatcher: Any = redis.dispatcher()
    for _ in range(3):
        tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").raise_for_error()
    consumer = Steps(redis.broker, redis.queue, dispatcher).consumers[redis.queue].consumer
    assert consumer._taken() is not None
    assert len(consumer.unsettled.ready) == 2

    consumer.context.stopping.set()
    consumer.close()

    counts = redis.broker.client.hvals(f"{redis.namespace}:{redis.queue}.dispatchers")
    assert sorted(counts) == [b"0", b"0", b"1"]
