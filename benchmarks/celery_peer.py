"""Dispatching to Celery, over Celery's own `delay`, on the same broker and in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any
from uuid import uuid4

from celery import Celery
from dispatchers_celery import CeleryDispatcher

from dispatchers.testing.servers import RabbitMQServer, RedisServer

from ._measure import Figure, interleaved, ratio
from .tasks import small

MANY = 100


def on_redis() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        yield from _figures("celery/redis", server.url, {}, single=0.80, many=0.20)


def on_rabbitmq() -> Iterator[Figure]:
    confirmed = {"broker_transport_options": {"confirm_publish": True}}
    with RabbitMQServer() as server:
        yield from _figures("celery/rabbitmq", server.url, confirmed, single=0.95, many=0.30)


def in_a_worker() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        command = [sys.executable, "-m", "benchmarks._celery_worker", server.url, "bench"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    bare, ours = (median(rounds) for rounds in json.loads(done.stdout.splitlines()[-1]))
    yield ratio("celery/redis: a run in the worker over a bare one, both late", 1.15, ours, bare)


def _nothing(number: int, text: str) -> None:
    del number, text


def _figures(
    name: str, url: str, settings: dict[str, Any], *, single: float, many: float
) -> Iterator[Figure]:
    """Both sides wait for RabbitMQ's confirms, and neither has a result backend."""
    queue = f"bench-{uuid4().hex}"
    app: Any = Celery("bench", broker=url, set_as_current=False)
    app.conf.update(task_default_queue=queue, task_ignore_result=True, **settings)
    raw = app.task(name="bench.raw")(_nothing)
    dispatcher = CeleryDispatcher(url=url, queue=queue, deadline=30.0)
    bound = small.options(dispatcher=dispatcher)

    def batch() -> None:
        added = bound.batch()
        for number in range(MANY):
            added.add(number=number, text="abc")
        added.dispatch().raise_for_error()

    ours, theirs, ours_many = interleaved(
        lambda: bound.dispatch(number=1, text="abc"),
        lambda: raw.delay(1, "abc"),
        batch,
        rounds=30,
        each=20,
    )
    dispatcher.close()
    app.pool.force_close_all()
    yield ratio(f"{name}: a dispatch over `delay`", single, ours, theirs)
    yield ratio(
        f"{name}: `dispatch_many` of 100, each, over `delay`", many, ours_many / MANY, theirs
    )
