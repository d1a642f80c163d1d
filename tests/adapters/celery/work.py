"""Tasks that a real worker runs in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from contextvars import ContextVar

from celery import current_task
from celery.exceptions import Ignore, Reject, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Retry as CeleryRetry

from dispatchers import Backoff, Discard, Retry, current_run, task
from dispatchers.testing import Journal


@task(name="celery_tests.note")
def note(journal: str, text: str) -> None:
    Journal(journal).write(text)


@task(name="celery_tests.fail", max_attempts=3, backoff=Backoff(initial=0))
def fail(journal: str) -> None:
    Journal(journal).write("ran")
    raise OSError("as asked")


@task(name="celery_tests.die")
def die(journal: str, times: int) -> None:
    """End the process in the midst of the run, so many times."""
    Journal(journal).write("began")
    if current_run().deliveries <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    Journal(journal).write("ended")


@task(name="celery_tests.slow")
def slow(journal: str, seconds: float) -> None:
    Journal(journal).write("began")
    time.sleep(seconds)
    Journal(journal).write("ended")


@task(name="celery_tests.patient", max_attempts=2)
def patient(journal: str) -> None:
    """Give the work back when the worker stops."""
    Journal(journal).write("began")
    end = time.monotonic() + 30
    while not current_run().should_stop:
        if time.monotonic() > end:
            return
        time.sleep(0.02)
    Journal(journal).write("stops")
    raise Retry


@task(name="celery_tests.limited", time_limit=1)
def limited(journal: str) -> None:
    Journal(journal).write("began")
    time.sleep(30)
    Journal(journal).write("ended")


@task(name="celery_tests.discard")
def discard(journal: str) -> None:
    raise Discard("not wanted")


@task(name="celery_tests.converted")
def converted(path: str, text: str = "default") -> None:
    """A task that was Celery's once; its messages have plain arguments, or an envelope."""
    with open(path, "a") as file:  # noqa: PTH123 - outside of a run there is no journal
        file.write(f"{text}\n")


@task(name="celery_tests.converted_async", max_attempts=3, backoff=Backoff(initial=0))
async def converted_async(journal: str) -> str:
    """A converted task that wants another attempt first."""
    await asyncio.sleep(0)
    Journal(journal).write("ran")
    if current_run().attempt == 1:
        raise Retry(after=0)
    return f"attempt {current_run().attempt}"


@task(name="celery_tests.double")
def double(number: int) -> int:
    return 2 * number


@task(name="celery_tests.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(name="celery_tests.unwanted")
def unwanted() -> None:
    raise Discard("not wanted")


class OddError(BaseException):
    """Raised by libraries that mean to leave everything behind."""


@task(name="celery_tests.odd", max_attempts=2, backoff=Backoff(initial=0))
def odd(journal: str) -> None:
    Journal(journal).write("ran")
    raise OddError


class TwoArgumentsError(Exception):
    """Cannot be read from its pickle, as the exceptions of many libraries."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")


ENDS: dict[str, Callable[[], Exception]] = {
    "ignore": Ignore,
    "lost": WorkerLostError,
    "memory": MemoryError,
    "requeue": lambda: Reject(requeue=True),
    "retry": CeleryRetry,
    "time": TimeLimitExceeded,
    "unreadable": lambda: TwoArgumentsError(404, "not found"),
}


@task(name="celery_tests.ends")
def ends(journal: str, how: str) -> None:
    Journal(journal).write(how)
    failure = ENDS[how]()
    raise failure


@task(name="celery_tests.swallow", time_limit=1)
def swallow(journal: str) -> None:
    Journal(journal).write("began")
    with contextlib.suppress(Exception):  # which some tasks do
        time.sleep(30)


@task(name="celery_tests.loop")
async def loop(journal: str) -> None:
    Journal(journal).write(str(id(asyncio.get_running_loop())))


LEFT: ContextVar[str] = ContextVar("left", default="nothing")


@task(name="celery_tests.leave")
def leave(journal: str) -> None:
    """Write what the run before has left in the context."""
    Journal(journal).write(LEFT.get())
    LEFT.set("something")


@task(name="celery_tests.traced", max_attempts=2, backoff=Backoff(initial=0))
def traced(journal: str) -> None:
    """Write the message's headers, of each attempt."""
    headers = vars(current_task.request)
    Journal(journal).write(json.dumps([headers.get("traceparent"), headers.get("headers")]))
    raise Retry


@task(name="celery_tests.patient_once")
def patient_once(journal: str) -> None:
    """Run for ever at first, and end when it comes again."""
    Journal(journal).write("began")
    if len(Journal(journal).texts) == 1:
        time.sleep(60)
    Journal(journal).write("ended")


@task(name="celery_tests.printing")
def printing(journal: str) -> None:
    print("printed by a task")
