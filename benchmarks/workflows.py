"""Durable workflows: their steps on SQLite, beside DBOS and Temporal in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, process_time, sleep
from typing import Any

import dispatchers
from dispatchers._journal.loading import journal_of
from dispatchers._journal.values import Entry, Record
from dispatchers.workflows import Workflow
from dispatchers.workflows._turn import replayed

from ._commits import counted
from ._measure import Figure, interleaved, ratio
from .flows import at_once, locally, one_by_one, parked, plain
from .workflows_journal import bare

PEERS = os.environ.get("BENCH_PEERS", sys.executable)
"""The interpreter that has DBOS and Temporal; they may live in an environment of their own."""
TIMEOUT = 120.0
TICKS = os.sysconf("SC_CLK_TCK")


# Local steps.


def local_steps() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, _inline(path := Path(folder) / "work.db"):
        locally.dispatch(20).raise_for_error()
        walls, peers, busy, least = [], [], 0.0, 0.0
        for turn in range(3):
            began, work = perf_counter(), process_time()
            locally.dispatch(500).raise_for_error()
            busy += process_time() - work
            walls.append((perf_counter() - began) / 500)
            least += _busy(bare(Path(folder) / f"bare-{turn}.db"), 500)
            peers.append(_peer("_dbos_peer.py", Path(folder) / f"dbos-{turn}.db", 40, 1))
        commits = counted(path, lambda: locally.dispatch(100).raise_for_error())
    peer = {key: median(each[key] for each in peers) for key in ("wall", "cpu")}
    yield ratio("a local step, full sync, over one of DBOS", 0.1, median(walls), peer["wall"], 1e3)
    detail = f"bare statements {least / 1.5:.2f} ms, DBOS {peer['cpu'] * 1e3:.2f} ms"
    yield _milliseconds("the same in processor time", 0.15, busy / 1500, detail)
    detail = f"{commits} for an execution of 100: its start, its turn, its end and each step"
    yield Figure("commits of a local step", 1.0, (commits - 3) / 100, detail)


def _busy(call: Callable[[], object], calls: int) -> float:
    """Seconds of processor time that all calls take."""
    began = process_time()
    for _ in range(calls):
        call()
    return process_time() - began


def replay() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, _inline(path := Path(folder) / "work.db"):
        locally.options(idempotency_key="long").dispatch(2000).raise_for_error()
        times = sorted(_replayed(*_recorded(path, f"{locally.name}/long")) for _ in range(9))
    seconds = times[len(times) // 2] / 2000
    detail = f"{seconds * 1e6:.2f} us for its two entries, processor time"
    yield Figure("us of replay per recorded step", 10.0, seconds * 1e6, detail)


def _recorded(path: Path, execution: str) -> tuple[Record, list[Entry]]:
    journal = journal_of(f"sqlite:{path}")
    record = journal.look(execution, timeout=TIMEOUT)
    assert record is not None
    return record, list(journal.entries(execution, timeout=TIMEOUT))


def _replayed(record: Record, entries: list[Entry]) -> float:
    began = process_time()
    again = replayed(record, locally.versions, entries)
    again.feed(*[entry for entry in entries if not entry.kind.is_command])
    taken = process_time() - began
    assert again.end is not None
    assert again.end.output == record.output
    return taken


# Task steps, by a worker.


def task_steps() -> Iterator[Figure]:
    number = 300
    with tempfile.TemporaryDirectory() as folder, _worker(Path(folder), children=1) as worker:
        worker.run(one_by_one, 30)
        cpu, wall = worker.run(one_by_one, number)
        commits = counted(worker.path, lambda: worker.run(one_by_one, 50))
        temporal = _peer("_temporal_peer.py", Path(folder) / "temporal.db", 20)
    with tempfile.TemporaryDirectory() as folder:
        local = _local_on(Path(folder) / "local.db")
    case = "a task step, one SQLite file, full sync, over an activity of Temporal's own server"
    yield ratio(case, 0.1, wall / number, temporal["activity"], 1e3)
    detail = f"{number / wall:.0f} steps/s one after the other, two processes"
    yield _milliseconds("the same in processor time", 1.0, cpu / number, detail)
    detail = f"{commits} for an execution of 50, its start and its end among them"
    yield Figure("commits of a task step", 2.1, commits / 50, detail)
    yield ratio("a local step over a local activity", 0.25, local, temporal["local"], 1e3)


def _local_on(path: Path) -> float:
    with _inline(path):
        locally.dispatch(10).raise_for_error()
        began = perf_counter()
        locally.dispatch(300).raise_for_error()
        return (perf_counter() - began) / 300


def gathered() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, _worker(Path(folder), children=2) as worker:
        worker.run(at_once, 20)
        cpu, wall = worker.run(at_once, 1000)
        turns = worker.turns
    detail = f"{wall:.2f} s, {cpu:.2f} s of them processor time"
    yield Figure("1,000 steps in one gather, two children", 1.5, wall, detail, " s")
    yield Figure("turns of it", 50.0, turns, f"{turns:.0f}, as answers are read in lots")


class _Worker:
    """The worker, and what it takes to run an execution."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.turns = 0
        self._process = process
        self._last = 0

    def run(self, flow: Workflow[Any, Any], number: int) -> tuple[float, float]:
        """Run an execution; returns seconds of processor time, and of the wall clock."""
        self._last += 1
        before = _cpu_of(self._process.pid)
        flow.options(idempotency_key=f"n{self._last}").dispatch(number).raise_for_error()
        wall = self._ended(f"{flow.name}/n{self._last}")
        return _cpu_of(self._process.pid) - before, wall

    def _ended(self, execution: str) -> float:
        query = "SELECT fence, finished_at - started_at FROM executions WHERE id = ? AND status = 2"
        until = monotonic() + TIMEOUT
        while monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"the worker ended with {self._process.returncode}")
            if found := _one(self.path, query, execution):
                self.turns, wall = int(found[0]), float(found[1])
                return wall
            sleep(0.02)
        raise RuntimeError(f"{execution} has not ended")


def _one(path: Path, query: str, *values: object) -> Any:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute(query, values).fetchone()
        except sqlite3.OperationalError:  # no tables yet
            return None


@contextlib.contextmanager
def _worker(folder: Path, children: int) -> Iterator[_Worker]:
    path, config = folder / "work.db", folder / "dispatchers.toml"
    config.write_text(
        f'tasks = ["benchmarks.flows"]\ntarget = "b"\n[targets.b.default]\n'
        f'backend = "sqlite"\npath = "{path}"\n'
    )
    command = [sys.executable, "-m", "dispatchers", "--config", str(config), "worker"]
    command += ["--concurrency", str(children)]
    quiet = subprocess.DEVNULL
    with dispatchers.override(default={"backend": "sqlite", "path": str(path), "deadline": 60.0}):
        plain.request(1)
        process = subprocess.Popen(command, start_new_session=True, stdout=quiet, stderr=quiet)
        try:
            yield _Worker(path, process)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _cpu_of(pid: int) -> float:
    """Seconds of processor time of a process and its children that run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / TICKS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(_cpu_of(int(child)) for child in children)


# Parked executions, and starts.


def ten_thousand_parked() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "work.db"
        taken = _printed([sys.executable, "-m", "benchmarks._parked", str(path), "10000"])
        journal: Any = journal_of(f"sqlite:{path}")
        sweeps = []
        for _ in range(20):
            began = perf_counter()
            assert not journal.due(limit=100, timeout=TIMEOUT)
            sweeps.append(perf_counter() - began)
    memory = taken["memory"] / 2**20
    detail = f"{taken['threads']:.0f} threads and {taken['files']:.0f} files more, file in memory"
    yield Figure("memory of 10,000 parked executions", 64.0, memory, detail, " MiB")
    yield Figure("threads and connections of them", 0.0, taken["threads"] + taken["files"], "")
    yield _milliseconds("a sweep over them", 5.0, median(sweeps), "")


def starts() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        options = {"backend": "sqlite", "path": str(Path(folder) / "work.db"), "deadline": 60.0}
        with dispatchers.override(default=options):
            ours, bare = interleaved(
                lambda: parked.dispatch(1).raise_for_error(),
                lambda: plain.dispatch(1).raise_for_error(),
                rounds=40,
                each=25,
            )
    yield ratio("the start of an execution over a plain task's dispatch", 1.0, ours, bare)


# What they share.


def _memory() -> str | None:
    """Return a folder in memory, where only memory and processor time are asked for."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def _inline(path: Path) -> Iterator[None]:
    """Run executions in this process, on a journal in a file."""
    options = {"workflows": f"sqlite:{path}", "targets": {"b": {"default": "inline"}}}
    dispatchers.configure(options, target="b")
    try:
        yield
    finally:
        dispatchers.configure()


def _peer(name: str, path: Path, *numbers: int) -> dict[str, float]:
    program = Path(__file__).with_name(name)
    return _printed([PEERS, str(program), str(path), *map(str, numbers)])


def _printed(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _milliseconds(case: str, limit: float, seconds: float, detail: str) -> Figure:
    return Figure(case, limit, seconds * 1e3, detail, " ms")


CASES: dict[str, Callable[[], Iterator[Figure]]] = {
    "workflows-local": local_steps,
    "workflows-step": task_steps,
    "workflows-gather": gathered,
    "workflows-replay": replay,
    "workflows-parked": ten_thousand_parked,
    "workflows-start": starts,
}
