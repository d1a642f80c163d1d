"""Turns go to the child process that has the code of their execution in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers._runtime.platform import lacks_posix
from dispatchers.sqlite._options import SQLiteOptions
from dispatchers.sqlite._records import Job
from dispatchers.sqlite._worker.child_handle import ChildProcess, setup_frame
from dispatchers.sqlite._worker.process_pool import ProcessPool

pytestmark = pytest.mark.skipif(lacks_posix() is not None, reason="the worker needs pipes")


def turn(seq: int) -> Job:
    body = b'{"version":1,"task":"shop.checkout/turn","payload":{"execution":"shop.checkout/a"}}'
    return Job(
        seq,
        seq,
        f"turn-{seq}",
        "shop.checkout/turn",
        "default",
        0,
        0.0,
        None,
        None,
        1,
        1,
        0.0,
        body,
    )


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ProcessPool]:
    """Two children, ready; what they say after that is not read."""
    options = SQLiteOptions(path=str(tmp_path / "work.db"))
    pool = ProcessPool(setup_frame(options, ()), 2, None)
    pool.start()
    while not all(child.ready for child in pool._children):
        pool.wait(1.0)
    yield pool
    pool.kill()
    pool.close(0.0)


@pytest.fixture
def home(pool: ProcessPool) -> ChildProcess:
    """The second child, which has taken the last turn, and is at another."""
    home = pool._children[1]
    pool._homes.remember(turn(1), home)
    pool.take([turn(2)], elapsed=0.0)
    assert len(home.jobs) == 1
    return home


def test_a_turn_waits_for_the_child_that_has_its_code(
    pool: ProcessPool, home: ChildProcess
) -> None:
    """Another child, idle as it is, would have to replay the whole execution."""
    home.since = math.inf  # the machine's own delays are none of the run

    pool.take([turn(3)], elapsed=0.0)

    assert [job.seq for job in home.jobs.values()] == [2, 3]


def test_a_turn_does_not_wait_behind_a_long_run(pool: ProcessPool, home: ChildProcess) -> None:
    """A run that may take minutes holds no execution up."""
    home.since = time.monotonic() - 60

    pool.take([turn(3)], elapsed=0.0)

    assert [job.seq for job in home.jobs.values()] == [2]
    assert [job.seq for job in pool._children[0].jobs.values()] == [3]


def test_a_turn_does_not_wait_behind_many_runs(pool: ProcessPool, home: ChildProcess) -> None:
    """Beyond the work that a child should have ahead, a replay is quicker."""
    home.since = math.inf

    pool.take([turn(seq) for seq in range(3, 40)], elapsed=0.0)

    assert len(pool._children[0].jobs) > 1
