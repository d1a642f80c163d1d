"""Dispatching to Dramatiq, over an actor's own `send`, on the same broker and in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any
from uuid import uuid4

import dramatiq
from dispatchers_dramatiq import DramatiqDispatcher
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from dispatchers.testing.servers import RabbitMQServer, RedisServer

from ._measure import Figure, interleaved, ratio
from .tasks import small

MANY = 100


def on_redis() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        broker = RedisBroker(url=server.url)
        yield from _figures("dramatiq/redis", broker, server.url, single=1.10, many=0.45)


def on_rabbitmq() -> Iterator[Figure]:
    with RabbitMQServer() as server:
        address = server.url.removesuffix("//") + "/%2F"
        broker = RabbitmqBroker(url=address, confirm_delivery=True)
        yield from _figures("dramatiq/rabbitmq", broker, server.url, single=1.20, many=0.25)
        broker.close()


def in_a_worker() -> Iterator[Figure]:
    """As it comes a worker waits for Redis most of the time; with all of it fetched it does not."""
    case = "dramatiq/redis: a run in the worker over a bare one"
    yield _in_a_worker(case, {})
    yield _in_a_worker(f"{case}, all fetched beforehand", {"dramatiq_queue_prefetch": "10000"})


def _in_a_worker(case: str, variables: dict[str, str]) -> Figure:
    with RedisServer(keeps="nothing") as server:
        command = [sys.executable, "-m", "benchmarks._dramatiq_worker", server.url, "bench"]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    bare, ours = (median(rounds) for rounds in json.loads(done.stdout.splitlines()[-1]))
    return ratio(case, 1.15, ours, bare)


def _nothing(number: int, text: str) -> None:
    del number, text


def _figures(name: str, broker: Any, url: str, *, single: float, many: float) -> Iterator[Figure]:
    """Both sides wait for RabbitMQ's confirms."""
    queue = f"bench-{uuid4().hex}"
    raw: Any = dramatiq.actor(_nothing, broker=broker, actor_name="raw", queue_name=queue)
    dispatcher = DramatiqDispatcher(url=url, queue=queue, deadline=30.0)
    bound = small.options(dispatcher=dispatcher)

    def batch() -> None:
        added = bound.batch()
        for number in range(MANY):
            added.add(number=number, text="abc")
        added.dispatch().raise_for_error()

    ours, theirs, ours_many = interleaved(
        lambda: bound.dispatch(number=1, text="abc"),
        lambda: raw.send(1, "abc"),
        batch,
        rounds=30,
        each=20,
    )
    dispatcher.close()
    yield ratio(f"{name}: a dispatch over `send`", single, ours, theirs)
    yield ratio(
        f"{name}: `dispatch_many` of 100, each, over `send`", many, ours_many / MANY, theirs
    )
