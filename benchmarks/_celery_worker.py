"""A Celery worker that runs a task of ours and a bare one in turns: `... URL QUEUE`.

Prints two lists in JSON: seconds per item of each round, the bare task's and ours.
"""

from __future__ import annotations

import json
import logging
import sys
from time import perf_counter
from typing import Any

from celery import Celery
from celery.worker import state
from dispatchers_celery import CeleryDispatcher, register

from dispatchers import task

ROUNDS, EACH = 12, 200
ran: list[float] = []


@task(name="bench.ours")
def ours(number: int, text: str) -> None:
    del number, text
    _ran()


def _ran() -> None:
    ran.append(perf_counter())
    if len(ran) == 2 * ROUNDS * EACH:
        state.should_stop = 0


def main() -> None:
    url, queue = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    app: Any = Celery("bench", broker=url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        task_ignore_result=True,
        task_acks_late=True,  # as ours: nothing is lost
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    dispatcher = CeleryDispatcher(app=app, deadline=30.0)
    register(app, dispatcher)
    bare = app.task(name="bench.bare")(_bare)
    bound = ours.options(dispatcher=dispatcher)
    for _ in range(ROUNDS):
        for number in range(EACH):
            bare.delay(number, "abc")
        for number in range(EACH):
            bound.dispatch(number, "abc").raise_for_error()
    worker = app.Worker(pool="solo", quiet=True, without_gossip=True, without_mingle=True)
    try:
        worker.start()
    finally:  # it ends the process
        print(json.dumps([rounds(0), rounds(1)]))


def _bare(number: int, text: str) -> None:
    del number, text
    _ran()


def rounds(first: int) -> list[float]:
    """Seconds per item, the first of a round left out: it waits for the last of another kind."""
    starts = range(first * EACH, len(ran), 2 * EACH)
    return [(ran[n + EACH - 1] - ran[n]) / (EACH - 1) for n in starts]


if __name__ == "__main__":
    main()
