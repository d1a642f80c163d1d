"""Many processes on one file."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

PATIENCE = 100.0
"""Seconds: how long one of them waits at most is the fair lock's matter, and the machine's."""
SCRIPT = f"""
import sys
from dispatchers.sqlite import Finish, NewJob, SQLiteStore, StoreError
path, kind, name = sys.argv[1:]
store = SQLiteStore(path)
refused = 0
store.open(timeout={PATIENCE})
held = []
def produce(number):
    store.put(NewJob(f"{{name}}-{{number}}", "t", "q", b"x"), timeout={PATIENCE})
def work(number):
    done = [Finish.done(job) for job in held]
    exchange = store.exchange(done, owner=owner, queues=["q"], limit=20, timeout={PATIENCE})
    held[:] = exchange.jobs
if kind == "work":
    owner = store.owners.register(timeout={PATIENCE})
for number in range(100):
    try:
        (produce if kind == "produce" else work)(number)
    except StoreError:
        refused += 1
print(refused)
"""


@pytest.mark.slow
def test_sixteen_processes_share_a_file_and_nobody_is_refused(desk: Any) -> None:
    """C2: 12 processes dispatching and 4 working on one file give no rejection."""
    desk.open().open(timeout=5)
    kinds = ["produce"] * 12 + ["work"] * 4
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(desk.path), kind, str(number)],
            stdout=subprocess.PIPE,
        )
        for number, kind in enumerate(kinds)
    ]

    results = [int(process.communicate(timeout=PATIENCE)[0]) for process in processes]

    assert results == [0] * 16
    counts = desk.open().counts()
    assert counts.ready + counts.running + counts.done == 1200
