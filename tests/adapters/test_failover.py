"""`failover` over real brokers that are stopped, frozen and cut off (F1 to F4, O13, O14)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from dispatchers import DispatchRequest, DispatchStatus, ErrorCategory, build
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.testing import FaultProxy
from dispatchers.testing.servers import PrivateServer, RabbitMQServer, RedisServer

DEADLINE = 0.8
GRACE = 0.25
LATE = 1.0
"""Seconds that this machine may be late by itself."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    pytest.importorskip("rq")
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def other_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQServer]:
    pytest.importorskip("celery")
    with RabbitMQServer() as server:
        yield server


def of_rq(alias: str, url: str, **options: Any) -> Any:
    return build(
        "rq",
        alias=alias,
        url=url,
        queue=f"failover-{uuid4().hex}",
        **{"deadline": DEADLINE, **options},
    )


def of_celery(alias: str, url: str, **options: Any) -> Any:
    return build(
        "celery",
        alias=alias,
        url=url,
        queue=f"failover-{uuid4().hex}",
        **{"deadline": DEADLINE, **options},
    )


def request(**options: Any) -> DispatchRequest:
    return DispatchRequest(task="shop.mail", payload={"n": 1}, **options)


@pytest.mark.slow
def test_redis_is_stopped_and_rabbitmq_takes_over(redis, rabbitmq):
    """F1, F3: a broker that is not there passes the work on, and gets it again when it is back."""
    first = of_rq("redis", redis.url, deadline=10.0, breaker={"failures": 1, "reset": 0.05})
    second = of_celery("rabbitmq", rabbitmq.url, deadline=10.0)
    made = FailoverDispatcher(to=[first, second])

    before = made.dispatch(request())
    redis.stop()
    during = [made.dispatch(request()) for _ in range(3)]
    batch = made.dispatch_many([request() for _ in range(5)])
    redis.start()
    after = before
    until = monotonic() + 30
    while after.dispatcher != "redis" or after is before:
        assert monotonic() < until
        after = made.dispatch(request())

    assert (before.status, before.dispatcher, before.durable) == ("accepted", "redis", True)
    assert {each.dispatcher for each in (*during, *batch)} == {"rabbitmq"}
    assert {each.status for each in (*during, *batch)} == {DispatchStatus.ACCEPTED}
    assert {p.dispatcher for each in (*during, *batch) for p in each.passed} == {"redis"}
    _close(first, second)


def test_a_redis_is_stopped_and_another_takes_over(redis, other_redis):
    """F1, F3: the same between two of a kind, under names of their own."""
    first = of_rq("one", redis.url, breaker={"failures": 1, "reset": 0.05})
    second = of_rq("other", other_redis.url)
    made = FailoverDispatcher(to=[first, second], alias="both")

    redis.stop()
    during = made.dispatch(request())
    redis.start()
    until = monotonic() + 30
    while made.dispatch(request()).dispatcher != "one":
        assert monotonic() < until

    assert (during.status, during.dispatcher) == (DispatchStatus.ACCEPTED, "other")
    assert during.passed[0].error.category is ErrorCategory.UNAVAILABLE
    _close(first, second)


def test_a_black_hole_costs_no_more_than_the_deadline(redis, other_redis):
    """F2: a server that swallows what it is sent while connecting leaves the others their time."""
    with FaultProxy(redis.host, redis.port) as proxy:
        proxy.black_hole(accept=False)
        url = f"redis://127.0.0.1:{proxy.port}/0"
        first = of_rq("gone", url, breaker={"failures": 2, "reset": 600.0})
        second = of_rq("there", other_redis.url)
        # More than the members have: a machine that is late must not take the second one's time.
        made = FailoverDispatcher(to=[first, second], deadline=10.0)

        took, answers = _timed(made, 4)
        again = asyncio.run(made.adispatch(request()))

        assert all(each <= DEADLINE + GRACE + LATE for each in took)
        assert {each.dispatcher for each in (*answers, again)} == {"there"}
        # Two that were late opened the breaker: those after them cost nothing.
        assert [each.passed[0].error.category for each in (*answers, again)] == [
            "timeout",
            "timeout",
            "circuit_open",
            "circuit_open",
            "circuit_open",
        ]
        _close(first, second)


def _is_unknown_and_stays(made: FailoverDispatcher) -> None:
    """The first of two members may have it; the second does not."""
    response = made.dispatch(request())

    assert (response.status, response.dispatcher) == (DispatchStatus.UNKNOWN, "doubtful")
    assert sum(each.waiting or 0 for each in made.members[1].stats()) == 0


def test_a_lost_reply_is_unknown_and_goes_to_nobody_else(redis, other_redis):
    """F1, O13: what may have arrived is not handed to the next broker."""
    with FaultProxy(redis.host, redis.port) as proxy:
        first = of_rq("doubtful", f"redis://127.0.0.1:{proxy.port}/0")
        second = of_rq("there", other_redis.url)
        made = FailoverDispatcher(to=[first, second])
        made.dispatch(request()).raise_for_error()
        proxy.drop_reply()

        _is_unknown_and_stays(made)
        proxy.heal()
        _close(first, second)


@pytest.mark.slow
def test_a_lost_confirm_is_unknown_and_goes_to_nobody_else(rabbitmq, other_redis):
    """F1, O13: the same of a RabbitMQ that swallows what it is sent."""
    with FaultProxy(rabbitmq.host, rabbitmq.port) as proxy:
        url = rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port))
        first, second = of_celery("doubtful", url), of_rq("there", other_redis.url)
        made = FailoverDispatcher(to=[first, second], deadline=10.0)
        made.dispatch(request(deadline=10.0)).raise_for_error()
        proxy.black_hole()

        _is_unknown_and_stays(made)
        proxy.heal()
        _close(first, second)


def test_all_brokers_are_stopped(redis, other_redis):
    """O14: the answer is `rejected`, may be repeated, and has the error of each."""
    first, second = of_rq("one", redis.url), of_rq("other", other_redis.url)
    made = FailoverDispatcher(to=[first, second])
    servers: list[PrivateServer] = [redis, other_redis]
    for server in servers:
        server.stop()

    started = monotonic()
    response = made.dispatch(request())
    took = monotonic() - started
    for server in servers:
        server.start()

    assert (response.status, response.dispatcher) == (DispatchStatus.REJECTED, "failover")
    assert response.error is not None
    assert (response.error.category, response.error.retryable) == (ErrorCategory.UNAVAILABLE, True)
    assert [each.dispatcher for each in response.passed] == ["one", "other"]
    assert took <= DEADLINE + GRACE + LATE
    _close(first, second)


def _timed(dispatcher: Any, times: int) -> tuple[list[float], list[Any]]:
    took, answers = [], []
    for _ in range(times):
        started = monotonic()
        answers.append(dispatcher.dispatch(request()))
        took.append(monotonic() - started)
    return took, answers


def _close(*dispatchers: Any) -> None:
    for each in dispatchers:
        each.close(1.0)
