"""Tasks for the tests of the worker; they note what happens in the file that is their argument."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from dispatchers import Backoff, Discard, Retry, current_run, task
from dispatchers.backends.sqlite import SQLiteDispatcher


def note(path: str, *words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def noted(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def wait_for(path: str, word: str, count: int = 1, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while sum(line.startswith(word) for line in noted(path)) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{word!r} was not noted {count} times: {noted(path)}")
        time.sleep(0.01)


@task(name="w.note")
def quick(path: str, word: str) -> None:
    note(path, word)


@task(name="w.counts")
def counts(path: str) -> None:
    note(path, "neighbour", current_run().deliveries)


@task(name="w.stamps")
def stamps(path: str, word: str) -> None:
    time.sleep(0.005)
    note(path, word)


@task(name="w.nothing")
def nothing() -> None:
    pass


@task(name="w.follows")
def follows(queue: str, path: str) -> None:
    SQLiteDispatcher(path=queue).dispatch(quick.request(path=path, word="followed"))


@task(name="w.print")
def prints(path: str) -> None:
    print("x" * 100_000)
    os.write(1, b"y" * 100_000)
    print("z" * 100_000, file=sys.stderr)
    note(path, "read", repr(sys.stdin.read()))


@task(name="w.flaky", max_attempts=3, backoff=Backoff(initial=0.05))
def flaky(path: str) -> None:
    run = current_run()
    note(path, "attempt", run.attempt, run.deliveries)
    if run.attempt < 3:
        raise OSError("not yet")


@task(name="w.fails", max_attempts=2, backoff=Backoff(initial=0.05))
def fails(path: str) -> None:
    note(path, "failed")
    raise OSError("never")


@task(name="w.kills")
def kills(path: str) -> None:
    note(path, "killing", current_run().deliveries)
    os._exit(9)


@task(name="w.exits")
def exits(path: str) -> None:
    note(path, "exiting", current_run().deliveries)
    if current_run().deliveries == 1:
        sys.exit(1)


@task(name="w.overruns", time_limit=0.3, max_attempts=2, backoff=Backoff(initial=0.05))
def overruns(path: str) -> None:
    note(path, "overrunning", current_run().attempt)
    time.sleep(600)


@task(name="w.overruns_async", time_limit=0.3)
async def overruns_async(path: str) -> None:
    note(path, "overrunning")
    try:
        await asyncio.sleep(600)
    finally:
        note(path, "cancelled")


@task(name="w.waits")
def waits(path: str, word: str, count: int) -> None:
    note(path, "waiting")
    wait_for(path, word, count)
    note(path, "waited")


@task(name="w.heeds")
def heeds(path: str) -> None:
    note(path, "heeding", current_run().deliveries)
    while not current_run().should_stop:
        time.sleep(0.01)
    note(path, "heeded")
    raise Retry


@task(name="w.stubborn")
def stubborn(path: str) -> None:
    note(path, "working", os.getpid())
    while not current_run().should_stop:
        time.sleep(0.01)
    note(path, "told")
    time.sleep(600)


@task(name="w.sleeps")
def sleeps(path: str, seconds: float) -> None:
    note(path, "sleeping", os.getpid(), current_run().deliveries)
    time.sleep(seconds)
    note(path, "slept")


@task(name="w.spawns", time_limit=0.5)
def spawns(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note(path, "spawned", child.pid)
    child.wait()


@task(name="w.discards")
def discards(path: str) -> None:
    note(path, "discarding")
    raise Discard


@task(name="w.talks", time_limit=0.5)
def talks(seconds: float) -> None:
    print("begin")
    print("half a line", end="")
    time.sleep(seconds)


@task(name="w.forks")
def forks(path: str, how: str) -> None:
    pid = os.fork()
    if pid == 0:
        note(path, "child")
        if how == "raise":
            raise ValueError("of the child")
        if how == "exit":
            sys.exit(3)
        return
    _, status = os.waitpid(pid, 0)
    note(path, "parent", os.waitstatus_to_exitcode(status))


@task(name="w.pools")
def pools(path: str) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        note(path, "pooled", *pool.map(abs, [-1, -2]))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process.terminate()
    note(path, "terminated", process.wait(20))


@task(name="w.leaves")
def leaves(path: str, seconds: float) -> None:
    note(path, "left", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    time.sleep(seconds)


@task(name="w.large")
def large(text: str) -> None:
    pass
