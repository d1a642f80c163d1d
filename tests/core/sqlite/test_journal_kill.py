"""D2, D3, D10: workers and their children are killed at any moment, and every execution ends right.

Journal and queue are one file, so that what runs found out is recorded as their jobs are settled.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from dispatchers.journals import EntryKind, Query, Record, Status
from dispatchers.sqlite import SQLiteJournal, SQLiteStore

HERE = Path(__file__).parent


class Workers:
    """Workers of one file, which are killed and replaced."""

    def __init__(self, folder: Path, count: int) -> None:
        config = folder / "dispatchers.toml"
        config.write_text(
            'tasks = ["journal_tasks"]\n[targets.test.default]\nbackend = "sqlite"\n'
            f'path = "{folder / "work.db"}"\nlease = 2.0\n'
        )
        self._environment = {
            **os.environ,
            "DISPATCHERS_CONFIG": str(config),
            "DISPATCHERS_TARGET": "test",
            "KILLED_LOG": str(folder / "steps.log"),
            "PYTHONPATH": str(HERE),
        }
        self._errors = folder / "errors.log"
        self._running = [self._started() for _ in range(count)]

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dispatchers", "worker", "--concurrency", "2"]
        with self._errors.open("ab") as errors:
            return subprocess.Popen(command, env=self._environment, stdout=errors, stderr=errors)

    def run(self, code: str) -> None:
        """Run code that has the same configuration."""
        subprocess.run([sys.executable, "-c", code], env=self._environment, check=True)

    def kill(self) -> None:
        """Kill a worker, or one of its children."""
        victim = random.choice(self._running)
        children = _children(victim.pid)
        if children and random.random() < 0.5:
            # It may have ended by itself meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
            return
        victim.kill()
        victim.wait(30)
        self._running[self._running.index(victim)] = self._started()

    def stop(self) -> None:
        for each in self._running:
            each.terminate()
        for each in self._running:
            each.wait(60)

    def said(self) -> str:
        return self._errors.read_text()[-3000:]


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False)
    return [int(each) for each in found.stdout.split()]


def play(folder: Path, kills: int, executions: int) -> None:
    workers = Workers(folder, 2)
    journal = SQLiteJournal(folder / "work.db")
    try:
        workers.run(
            "from journal_tasks import flow\n"
            f"for n in range({executions}):\n"
            "    flow.options(idempotency_key=str(n)).dispatch(number=n).raise_for_error()"
        )
        for _ in range(kills):
            time.sleep(random.uniform(0.1, 1.0))
            workers.kill()
        _await_ends(journal, executions, workers, 120 + kills)
    finally:
        workers.stop()
    _judge(journal, folder, executions, kills)
    journal.close()


def _await_ends(journal: SQLiteJournal, count: int, workers: Workers, limit: float) -> None:
    end = time.monotonic() + limit
    query = Query(workflow="killed.flow", status=(Status.COMPLETED,), limit=count + 1)
    while (done := len(journal.find(query, timeout=30))) < count:
        assert time.monotonic() < end, f"{done} of {count} have ended: {workers.said()}"
        time.sleep(0.1)


def _judge(journal: SQLiteJournal, folder: Path, executions: int, kills: int) -> None:
    found = {each.id: each for each in journal.find(Query(limit=10 * executions), timeout=30)}
    for number in range(executions):
        record = found[f"killed.flow/{number}"]
        assert record.output == str(number + 1 + 10 + 2 + 1 + 2).encode()
    for record in found.values():
        _judge_entries(journal, record)
    ran = Counter((folder / "steps.log").read_text().split())
    repeated = sum(count - 1 for count in ran.values())
    print(f"{kills} kills, {executions} executions: {len(ran)} steps, {repeated} runs repeated")
    assert len(ran) == 9 * executions
    # A run is repeated only if its worker was killed before it was settled.
    assert repeated <= 40 * kills
    store = SQLiteStore(folder / "work.db")
    counts = store.counts(timeout=30)
    store.close()
    assert (counts.ready, counts.running, counts.dead) == (0, 0, 0)


def _judge_entries(journal: SQLiteJournal, record: Record) -> None:
    entries = journal.entries(record.id, timeout=30)
    assert [each.seq for each in entries] == list(range(1, record.head + 1))
    asked = Counter(each.number for each in entries if each.kind.is_command)
    answered = Counter(
        each.number for each in entries if EntryKind.DONE <= each.kind <= EntryKind.FIRED
    )
    assert asked == answered
    assert set(asked.values()) == {1}
    assert not journal.unsent(record.id, timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_executions_end_right_when_workers_are_killed(tmp_path: Path) -> None:
    """D2, D3, D10: kill -9 of workers and children loses nothing and records all once."""
    play(tmp_path, 10, 30)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_executions_end_right_in_the_long_run(tmp_path: Path) -> None:
    """The same many times over."""
    play(tmp_path, 300, 1000)
