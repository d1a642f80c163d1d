"""Tasks that a real worker runs in a process of its own."""

from __future__ import annotations

import os
import signal
import time

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
