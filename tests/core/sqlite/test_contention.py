"""Many processes on one file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, sys, time
from dispatchers.sqlite import Finish, NewJob, SQLiteStore, StoreError
path, kind, name = sys.argv[1:]
store = SQLiteStore(path)
done = refused = 0
store.open(timeout=30)
end = time.monotonic() + 2
def produce():
    store.put(NewJob(f"{name}-{done}", "t", "q", b"x"), timeout=2)
    return 1
def work(held=[]):
    done = [Finish.done(job) for job in held]
    exchange = store.exchange(done, owner=owner, queues=["q"], limit=20, timeout=2)
    held[:] = exchange.jobs
    time.sleep(0.001)
    return len(held)
if kind == "work":
    owner = store.owners.register(timeout=30)
while time.monotonic() < end:
    try:
        done += produce() if kind == "produce" else work()
    except StoreError:
        refused += 1
print(json.dumps([done, refused]))
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

    results = [json.loads(process.communicate(timeout=100)[0]) for process in processes]

    assert [refused for _, refused in results] == [0] * 16
    assert all(done for done, _ in results[:12])
