"""RQ's `SimpleWorker` and ours in turns, each on a queue of its own: `... URL`.

Prints two lists in JSON: seconds per item of each round, the bare job's and ours.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from time import perf_counter
from typing import Any

import rq
from dispatchers_rq import RQDispatcher, SimpleWorker
from redis import Redis
from rq.serializers import JSONSerializer

from dispatchers import task

ROUNDS, EACH = 12, 200
ran: list[float] = []


def bare(number: int, text: str) -> None:
    del number, text
    ran.append(perf_counter())


def main() -> None:
    logging.disable(logging.CRITICAL)
    me: Any = importlib.import_module("benchmarks._rq_worker")  # as RQ imports it
    ours = task(name="bench.ours")(me.bare)
    connection = Redis.from_url(sys.argv[1])
    queue = rq.Queue("bare", connection=connection, serializer=JSONSerializer)
    dispatcher = RQDispatcher(url=sys.argv[1], queue="ours", deadline=30.0)
    bound: Any = ours.options(dispatcher=dispatcher)
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for number in range(EACH):
            queue.enqueue("benchmarks._rq_worker.bare", number, "abc")
            bound.dispatch(number, "abc").raise_for_error()
        native = rq.SimpleWorker([queue], connection=connection, serializer=JSONSerializer)
        for worker, times in ((native, found[0]), (SimpleWorker(dispatcher, ["ours"]), found[1])):
            me.ran.clear()
            worker.work(burst=True, logging_level="CRITICAL")
            times.append((me.ran[-1] - me.ran[0]) / (EACH - 1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
