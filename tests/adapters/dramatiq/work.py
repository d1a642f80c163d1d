"""Tasks that a real worker runs in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextvars import ContextVar

from dispatchers import Backoff, Discard, Retry, current_run, task
from dispatchers.testing import Journal


@task(name="dramatiq_tests.note")
def note(journal: str, text: str) -> None:
    Journal(journal).write(text)


@task(name="dramatiq_tests.fail", max_attempts=3, backoff=Backoff(initial=0))
def fail(journal: str) -> None:
    Journal(journal).write("ran")
    raise OSError("as asked")


@task(name="dramatiq_tests.die")
def die(journal: str, times: int) -> None:
    """End the process in the midst of the run, so many times."""
    Journal(journal).write("began")
    if current_run().deliveries <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    Journal(journal).write("ended")


@task(name="dramatiq_tests.slow")
def slow(journal: str, seconds: float) -> None:
    Journal(journal).write("began")
    time.sleep(seconds)
    Journal(journal).write("ended")


@task(name="dramatiq_tests.slow_once")
def slow_once(journal: str) -> None:
    """Run for ever at first, and end when it comes again."""
    Journal(journal).write("began")
    if len(Journal(journal).texts) == 1:
        time.sleep(60)
    Journal(journal).write("ended")


@task(name="dramatiq_tests.patient", max_attempts=2)
def patient(journal: str) -> None:
    """Give the work back when the worker stops."""
    Journal(journal).write("began")
    if Journal(journal).texts.count("began") > 1:
        return
    end = time.monotonic() + 30
    while not current_run().should_stop:
        if time.monotonic() > end:
            return
        time.sleep(0.02)
    Journal(journal).write("stops")
    raise Retry


@task(name="dramatiq_tests.limited", time_limit=1)
def limited(journal: str) -> None:
    """Sleep in short turns: Dramatiq interrupts a thread when it comes back to Python."""
    Journal(journal).write("began")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.02)
    Journal(journal).write("ended")


@task(name="dramatiq_tests.discard")
def discard(journal: str) -> None:
    raise Discard("not wanted")


@task(name="dramatiq_tests.converted")
def converted(path: str, text: str = "default") -> None:
    """A task that was an actor once; its messages have plain arguments, or an envelope."""
    with open(path, "a") as file:  # noqa: PTH123 - outside of a run there is no journal
        file.write(f"{text}\n")


class OddEnd(BaseException):
    """No `Exception`, and none of those that end a process."""


@task(name="dramatiq_tests.odd", max_attempts=2, backoff=Backoff(initial=0))
def odd(journal: str) -> None:
    Journal(journal).write("ran")
    raise OddEnd


@task(name="dramatiq_tests.deaf", time_limit=1, max_attempts=1)
def deaf(journal: str) -> None:
    """Swallow the time limit, as a bare `except` does."""
    Journal(journal).write("began")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            time.sleep(0.02)
        except BaseException:  # noqa: BLE001 - which is what this is about
            break
    Journal(journal).write("returned")


_loops: dict[int, int] = {}
_seen: ContextVar[str] = ContextVar("dramatiq_tests_seen", default="nothing")


@task(name="dramatiq_tests.loop")
async def loop(journal: str) -> None:
    """Note whether this thread has had another event loop before."""
    own = id(asyncio.get_running_loop())
    same = _loops.setdefault(threading.get_ident(), own) == own
    Journal(journal).write("same" if same else "another")


@task(name="dramatiq_tests.leak")
def leak(journal: str) -> None:
    Journal(journal).write(_seen.get())
    _seen.set("what an earlier run has set")
