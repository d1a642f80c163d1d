"""Workers on SQLite: ours over huey's consumer, and ours with a million rows waiting."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

import dispatchers

from ._measure import Figure, ratio
from .tasks import small

TASKS = 4000


# As the partial index has it: without its own condition each look would read a million rows, on one
# of two processors that worker and child want.
DONE = "SELECT count(*) FROM jobs WHERE state IN (2, 3) AND state = 2"


def against_huey() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        ours = _ours(Path(folder) / "ours.db", TASKS + 1000)
        huey = _huey(Path(folder) / "huey.db")
    case = "`sqlite` worker, do-nothing tasks, time per task over huey's SQLite consumer"
    yield ratio(case, 0.2, ours, huey)


def with_a_million() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        few, many = [], []
        crowded = Path(folder) / "many.db"
        _fill(crowded, 1_000_000)
        for turn in range(3):
            small_file = Path(folder) / f"few-{turn}.db"
            _fill(small_file, 1000)
            few.append(_ours(small_file, TASKS + 1000))
            many.append(_ours(crowded))
    yield ratio("the same with 1,000,000 rows waiting, over 1,000", 1.2, min(many), min(few))


def _fill(path: Path, number: int) -> None:
    """Rows of several priorities, a third of them held back for an hour."""
    options = {"backend": "sqlite", "path": str(path), "deadline": 60.0, "synchronous": "normal"}
    chance = random.Random(1)
    with dispatchers.override(default=options):
        for _ in range(0, number, 5000):
            requests = []
            for _ in range(min(5000, number)):
                delay = timedelta(hours=1) if chance.random() < 1 / 3 else None
                bound = small.options(delay=delay, priority=chance.randrange(-5, 5))
                requests.append(bound.request(number=1, text="abc"))
            dispatchers.get_dispatcher().dispatch_many(requests).raise_for_error()


def _ours(path: Path, added: int = 0) -> float:
    """Seconds per task while one worker process runs `TASKS` of them at its own speed."""
    _top_up(path, added)
    config = path.with_suffix(".toml")
    config.write_text(
        f'tasks = ["benchmarks.tasks"]\ntarget = "b"\n[targets.b.default]\n'
        f'backend = "sqlite"\npath = "{path}"\n'
    )
    command = [sys.executable, "-m", "dispatchers", "--config", str(config), "worker"]
    command += ["--concurrency", "1"]
    return _timed(command, lambda: _done_by_us(path))


def _top_up(path: Path, number: int) -> None:
    """Rows that are ready."""
    with dispatchers.override(default={"backend": "sqlite", "path": str(path), "deadline": 60.0}):
        requests = [small.request(number=1, text="abc") for _ in range(number)]
        dispatchers.get_dispatcher().dispatch_many(requests).raise_for_error()


def _done_by_us(path: Path) -> int:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        done = connection.execute(DONE).fetchone()[0]
    connection.close()
    return int(done)


def _huey(path: Path) -> float:
    environment = {**os.environ, "BENCH_HUEY": str(path)}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.huey_peer", str(TASKS + 1000)],
        env=environment,
        check=True,
    )
    command = [
        sys.executable,
        "-m",
        "huey.bin.huey_consumer",
        "benchmarks.huey_peer.queue",
        "-w",
        "1",
        "-k",
        "process",
        "-q",
    ]
    return _timed(command, lambda: TASKS + 1000 - _left_in_huey(path), environment)


def _left_in_huey(path: Path) -> int:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        left = connection.execute("SELECT count(*) FROM task").fetchone()[0]
    connection.close()
    return int(left)


def _timed(command, done, environment=None) -> float:
    """Seconds per task between the first tenth and `TASKS`, so that starting up does not count."""
    before = done()
    worker = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        start, first = _when(done, before + TASKS // 10, worker)
        end, last = _when(done, before + TASKS, worker)
        return (end - start) / (last - first)
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(30)


def _when(done, number: int, worker) -> tuple[float, int]:
    while (found := done()) < number:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode} after {found}")
        sleep(0.05)
    return monotonic(), found
