"""A Dramatiq worker that runs a task of ours and a bare one in turns: `... URL QUEUE`.

Prints two lists in JSON: seconds per item of each round, the bare task's and ours.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from time import perf_counter
from typing import Any

import dramatiq
from dispatchers_dramatiq import DramatiqDispatcher, register
from dramatiq.brokers.redis import RedisBroker

from dispatchers import task

ROUNDS, EACH = 12, 200
ran: list[float] = []
done = threading.Event()


@task(name="bench.ours")
def ours(number: int, text: str) -> None:
    del number, text
    _ran()


def _ran() -> None:
    ran.append(perf_counter())
    if len(ran) == 2 * ROUNDS * EACH:
        done.set()


def _bare(number: int, text: str) -> None:
    del number, text
    _ran()


def main() -> None:
    url, queue = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    broker: Any = RedisBroker(url=url)
    dispatcher = DramatiqDispatcher(broker=broker, queue=queue, deadline=30.0)
    register(broker, dispatcher)
    bare: Any = dramatiq.actor(_bare, broker=broker, actor_name="bare", queue_name=queue)
    bound = ours.options(dispatcher=dispatcher)
    for _ in range(ROUNDS):
        for number in range(EACH):
            bare.send(number, "abc")
        for number in range(EACH):
            bound.dispatch(number, "abc").raise_for_error()
    worker = dramatiq.Worker(broker, queues={queue}, worker_threads=1)
    worker.start()
    done.wait(300)
    worker.stop()
    print(json.dumps([rounds(0), rounds(1)]))


def rounds(first: int) -> list[float]:
    """Seconds per item, the first of a round left out: it waits for the last of another kind."""
    starts = range(first * EACH, len(ran), 2 * EACH)
    return [(ran[n + EACH - 1] - ran[n]) / (EACH - 1) for n in starts]


if __name__ == "__main__":
    main()
