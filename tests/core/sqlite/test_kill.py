"""C9: whoever is killed, at whatever moment, nothing that was confirmed is lost.

Producers and workers are processes that are killed with SIGKILL at random moments. Producers write
down what was confirmed to them, workers what was recorded for them, each after the fact.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

PRODUCER = """
import itertools, os, sys, uuid
from dispatchers.sqlite import NewJob, SQLiteStore
store = SQLiteStore(sys.argv[1])
os.write(1, b"\\n")
for number in itertools.count():
    if number % 3:
        jobs = [NewJob(uuid.uuid4().hex, "t", "q", b"x" * 200)]
        store.put(jobs[0], timeout=30)
    else:
        jobs = [NewJob(uuid.uuid4().hex, "t", "q", b"x" * 200) for _ in range(5)]
        store.put_many(jobs, timeout=30)
    os.write(1, "".join(job.id + "\\n" for job in jobs).encode())
"""

WORKER = """
import os, random, sys, threading, time
from dispatchers.sqlite import Finish, SQLiteStore
store = SQLiteStore(sys.argv[1], lease=1.0)
owner = store.owners.register(timeout=30)
os.write(1, b"\\n")
def beat():
    while True:
        alive = store.owners.beat(owner, timeout=30)
        assert alive, "a lease was lost that was renewed"
        store.owners.reap(timeout=30)
        time.sleep(0.2)
threading.Thread(target=beat, daemon=True).start()
finished = []
while True:
    recorded = finished
    exchange = store.exchange(finished, owner=owner, queues=["q"], limit=20, timeout=30)
    assert not exchange.lost, "a result was refused although the lease was renewed"
    os.write(1, "".join(f.job.id + "\\n" for f in recorded if f.outcome == "done").encode())
    finished = [
        Finish.done(job) if random.random() < 0.9 else Finish.retry(job) for job in exchange.jobs
    ]
    time.sleep(0.002 if finished else 0.02)
"""


class Troupe:
    """Processes of one kind that are killed and replaced, and what they wrote down."""

    def __init__(self, script: str, queue: Path, logs: Path, count: int) -> None:
        self._command = [sys.executable, "-c", script, str(queue)]
        self._logs = logs
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._started = 0
        for _ in range(count):
            self.start()

    def start(self) -> None:
        self._started += 1
        path = self._logs / f"{self._started}.log"
        with path.open("wb") as log, path.with_suffix(".errors").open("wb") as errors:
            process = subprocess.Popen(self._command, stdout=log, stderr=errors)
        self._running.append((process, path))

    def kill(self, *, replace: bool) -> None:
        victim, log = self._running.pop(random.randrange(len(self._running)))
        while not log.stat().st_size and victim.poll() is None:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        victim.send_signal(signal.SIGKILL)
        assert victim.wait(30) == -signal.SIGKILL, self._errors()
        if replace:
            self.start()

    def stop(self) -> None:
        """Kill the rest; none of them had ended by itself."""
        for process, _ in self._running:
            process.kill()
        codes = {process.wait(30) for process, _ in self._running}
        self._running.clear()
        assert codes <= {-signal.SIGKILL}, self._errors()

    def _errors(self) -> str:
        """What those said that ended by themselves."""
        return "".join(path.read_text() for path in self._logs.glob("*.errors"))

    def log(self) -> Counter[str]:
        """Complete lines only: the last may have been cut short by the kill."""
        lines: Counter[str] = Counter()
        for path in self._logs.glob("*.log"):
            lines.update(filter(None, path.read_text().split("\n")[:-1]))
        return lines


def play(desk: Any, tmp_path: Path, kills: int) -> None:
    """Kill producers and workers so many times, let the rest be worked off, and count."""
    troupes = []
    for name, script, count in (("producers", PRODUCER, 3), ("workers", WORKER, 3)):
        (tmp_path / name).mkdir()
        troupes.append(Troupe(script, desk.path, tmp_path / name, count))
    producers, workers = troupes
    store = desk.open()
    try:
        for _ in range(kills):
            random.choice(troupes).kill(replace=True)
        producers.stop()
        end = time.monotonic() + 60 + kills
        while (counts := store.counts(timeout=30)).ready + counts.running + counts.delayed:
            assert time.monotonic() < end, counts
            time.sleep(0.1)
    finally:
        for troupe in troupes:
            troupe.stop()

    confirmed, recorded = producers.log(), workers.log()
    with store.database.transaction(timeout=10) as connection:
        done = {row[0] for row in connection.execute("SELECT id FROM jobs WHERE state = 2")}
    print(f"{kills} kills: {len(confirmed)} confirmed, {len(done)} done")
    assert len(confirmed) > 100
    assert set(confirmed) - done == set(), "confirmed work was lost"
    assert set(recorded) - done == set(), "a recorded result was lost"
    assert max(recorded.values()) == 1, "a job has two results"
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_nothing_confirmed_is_lost_when_processes_are_killed(desk: Any, tmp_path: Path) -> None:
    """C9: kill -9 of producers and workers at random moments loses nothing, records all once."""
    play(desk, tmp_path, 10)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_nothing_confirmed_is_lost_in_the_long_run(desk: Any, tmp_path: Path) -> None:
    """C9: the same many times over."""
    play(desk, tmp_path, 300)
