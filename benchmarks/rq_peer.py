"""Dispatching to RQ, over RQ's own `enqueue`, on the same Redis and in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any
from uuid import uuid4

from dispatchers_rq import RQDispatcher
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from dispatchers.testing.servers import RedisServer

from ._measure import Figure, interleaved, ratio
from .tasks import small

MANY = 100


def single() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        ours, theirs, _ = _measured(server.url)
    yield ratio("rq: a dispatch over `enqueue`", 0.85, ours, theirs)


def many() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        _, theirs, batch = _measured(server.url)
    yield ratio("rq: `dispatch_many` of 100, each, over `enqueue`", 0.30, batch / MANY, theirs)


def in_a_worker() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        command = [sys.executable, "-m", "benchmarks._rq_worker", server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    bare, ours = (median(rounds) for rounds in json.loads(done.stdout.splitlines()[-1]))
    yield ratio("rq: a run in a `SimpleWorker` over a bare one", 1.15, ours, bare)


def _measured(url: str) -> list[float]:
    """Seconds of a dispatch, of `enqueue`, and of a batch of `MANY`."""
    queue = f"bench-{uuid4().hex}"
    raw: Any = Queue(queue, connection=Redis.from_url(url), serializer=JSONSerializer)
    dispatcher = RQDispatcher(url=url, queue=queue, deadline=30.0)
    bound = small.options(dispatcher=dispatcher)

    def batch() -> None:
        added = bound.batch()
        for number in range(MANY):
            added.add(number=number, text="abc")
        added.dispatch().raise_for_error()

    found = interleaved(
        lambda: bound.dispatch(number=1, text="abc"),
        lambda: raw.enqueue("benchmarks._rq_worker.bare", 1, "abc"),
        batch,
        rounds=30,
        each=20,
    )
    dispatcher.close()
    return found
