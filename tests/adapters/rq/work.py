"""Tasks that a real worker runs in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import time
from contextvars import ContextVar

from dispatchers import Backoff, Discard, Retry, current_run, task
from dispatchers.testing import Journal


@task(name="rq_tests.note")
def note(journal: str, text: str) -> None:
    Journal(journal).write(text)


@task(name="rq_tests.fail", max_attempts=3, backoff=Backoff(initial=0))
def fail(journal: str) -> None:
    Journal(journal).write("ran")
    raise OSError("as asked")


@task(name="rq_tests.die")
def die(journal: str, times: int) -> None:
    """End the process in the midst of the run, so many times."""
    Journal(journal).write("began")
    if current_run().deliveries <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    Journal(journal).write("ended")


@task(name="rq_tests.slow")
def slow(journal: str, seconds: float) -> None:
    Journal(journal).write("began")
    time.sleep(seconds)
    Journal(journal).write("ended")


@task(name="rq_tests.patient", max_attempts=2)
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


@task(name="rq_tests.limited", time_limit=1)
def limited(journal: str) -> None:
    Journal(journal).write("began")
    time.sleep(30)
    Journal(journal).write("ended")


@task(max_attempts=2, backoff=Backoff(initial=0))
def converted(path: str, text: str, number: int = 1) -> None:
    """A function that was an RQ job, and is a task now."""
    run = current_run()
    with open(path, "a") as file:  # noqa: PTH123 - as before it was converted
        file.write(f"{text}-{number}-{run.attempt}\n")
    if text == "fail":
        raise OSError("as asked")


@task(name="rq_tests.forks")
def forks(journal: str) -> None:
    """Let a child of the run return from it, before the run has ended."""
    if os.fork() == 0:
        return
    os.wait()
    Journal(journal).write("ended")


@task(name="rq_tests.pools")
def pools(journal: str) -> None:
    """Use processes as a plain program does."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        total = sum(pool.map(abs, [-1, -2]))
    sleeper = subprocess.Popen(["sleep", "60"])
    sleeper.terminate()
    Journal(journal).write(f"{total} {sleeper.wait(5)}")


@task(name="rq_tests.orphans")
def orphans(journal: str) -> None:
    """Be killed beside a process that would go on."""
    child = subprocess.Popen(["sleep", "600"])
    Journal(journal).write(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="rq_tests.swallows", time_limit=1)
def swallows(journal: str) -> None:
    """Catch what interrupts it."""
    try:
        time.sleep(30)
    except Exception:  # noqa: BLE001 - as careless code does
        Journal(journal).write("swallowed")


@task(name="rq_tests.contextual")
def contextual(journal: str) -> None:
    Journal(journal).write(LEFT.get())
    LEFT.set("leaked")


LEFT: ContextVar[str] = ContextVar("left", default="clean")
CLIENTS: list[asyncio.AbstractEventLoop] = []


@task(name="rq_tests.looped")
async def looped(journal: str) -> None:
    CLIENTS.append(asyncio.get_running_loop())
    Journal(journal).write(str(len({id(loop) for loop in CLIENTS})))


@task(name="rq_tests.prints")
def prints(text: str) -> None:
    print(text)


@task(name="rq_tests.odd")
def odd(journal: str) -> None:
    Journal(journal).write("ran")
    raise GeneratorExit


@task(name="rq_tests.discard")
def discard(journal: str) -> None:
    raise Discard("not wanted")


def plain(path: str, text: str = "default") -> None:
    """A function that runs with RQ as it is."""
    with open(path, "a") as file:  # noqa: PTH123 - outside of a run there is no journal
        file.write(f"{text}\n")
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "fail":
        raise OSError("as asked")
