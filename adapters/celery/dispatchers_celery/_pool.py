"""Celery's pool of processes when a worker stops: no run is forgotten, and none counted twice."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from billiard.process import active_children
from celery.app.task import Context
from celery.worker import state

from dispatchers.delivery import say

from ._dispatcher import CeleryDispatcher
from ._message import Received, again

__all__ = ["end_runs", "keep_begun", "received_of"]


def keep_begun(pool: Any) -> None:
    """Have a pool keep the messages that it has written to a process, when its consumer stops.

    Celery forgets those whose process has not said yet that it runs them (5.7, `AsynPool.flush`):
    such a run is never acknowledged and comes again, and its process waits for half a minute for
    its result to be read, beyond many a grace.
    """
    flush = pool.flush
    # Other pools keep no jobs; a consumer that has lost its connection starts once more.
    if hasattr(getattr(pool, "_pool", None), "_cache") and not isinstance(flush, partial):
        pool.flush = partial(_flush, pool, flush)


def _flush(pool: Any, native: Callable[[], None]) -> None:
    jobs = pool._pool._cache.values()
    written = [job for job in jobs if not job._accepted and job._write_to is not None]
    for job in written:
        job._accepted = True
    try:
        native()
    finally:
        for job in written:
            job._accepted = False


def end_runs(dispatcher: CeleryDispatcher) -> int:
    """Give back what the pool's processes still run, and kill them.

    Returns:
        How many runs there were, Celery's own among them.
    """
    processes = [child.pid for child in active_children()]
    # Frozen first: what is given back must not go on beside its next run.
    _signal(processes, signal.SIGSTOP)
    # Without processes, the runs are on threads, which nothing can end.
    runs = [each for each in tuple(state.active_requests) if processes and not each.acknowledged]
    for request in runs:
        if getattr(request.task, "dispatchers", False):
            _give_back(request, dispatcher)
    _signal(processes, signal.SIGKILL)
    return len(runs)


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _give_back(request: Any, dispatcher: CeleryDispatcher) -> None:
    """Publish the same delivery once more, then acknowledge this one: a stop counts as none."""
    try:
        received = received_of(request.message)
        draft = again(dispatcher.broker, received, received.counts)
        until = monotonic() + dispatcher.options.deadline
        if isinstance(answer := dispatcher.publisher.publish([draft], until)[0], Exception):
            raise answer  # noqa: TRY301
    except Exception as exc:  # noqa: BLE001 - the broker delivers it again, and counts it
        say(logging.ERROR, "a run could not be given back: %s; it counts", type(exc).__name__)
    else:
        request.acknowledge()  # queued: the thread that has the connection does it


def received_of(message: Any) -> Received:
    """Read a message as the process of a pool would."""
    args, kwargs, embedded = message.decode()
    headers = {**message.headers, "callbacks": embedded.get("callbacks")}
    context = Context(headers, delivery_info=message.delivery_info)
    return Received.read(context, message.headers["task"], args, kwargs)
