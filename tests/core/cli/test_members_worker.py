"""`worker` of a failover: one process for each member, which live and end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dispatchers import DispatchRequest, WorkerOptions, close_all, get_dispatcher
from dispatchers.backends._members_worker import MembersWorker
from dispatchers.testing import processes

from .conftest import Shop

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")


TWO_FILES = """modules = ["cli_shop"]
target = "test"
[targets.test]
default = { backend = "failover", to = ["main", "backup", "here"] }
main = { backend = "sqlite", path = "main.db" }
backup = { backend = "sqlite", path = "backup.db" }
here = "inline"
"""


@contextlib.contextmanager
def with_work_in_both(shop: Shop) -> Iterator[None]:
    """Work for both members of a failover, as if the first had been down for a while."""
    shop.configure(TWO_FILES)
    for alias in ("main", "backup"):
        assert get_dispatcher(alias).dispatch(
            DispatchRequest(task="shop.welcome", payload={"user_id": 1})
        )
    yield
    close_all()


def test_the_worker_of_a_failover_works_all_members(shop: Shop) -> None:
    """What failed over waits for no worker of its own."""
    with with_work_in_both(shop):
        # Without an alias: the members are no further places beside it.
        done = shop.process("worker", "--drain", "--concurrency", "1")
        left = [get_dispatcher(alias).stats()[0].waiting for alias in ("main", "backup")]

    assert (done.returncode, left) == (0, [0, 0]), done.stderr.decode()
    assert done.stdout.count(b"hello 1") == 2


@contextlib.contextmanager
def running(shop: Shop) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A worker, and the processes of its members."""
    shop.configure(TWO_FILES)
    command = [sys.executable, "-m", "dispatchers", "worker", "default", "--concurrency", "1"]
    with subprocess.Popen(command, cwd=shop.folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, _children(process.pid, 2)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_workers_of_a_failover_end_together(shop: Shop, number: int) -> None:
    """A signal to the one process ends all of them, in order."""
    with running(shop) as (process, members):
        process.send_signal(number)
        code = process.wait(30)

    assert code == 0
    assert not [pid for pid in members if _is_alive(pid)]


def test_each_member_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while the last one is started is told to it, and to no other again."""
    told: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: told.append(pid))
    worker = MembersWorker([], WorkerOptions())
    worker._running[1] = "main"

    worker.stop()
    worker._running[2] = "backup"
    worker.stop()

    assert told == [1, 2]


@pytest.mark.slow
def test_a_member_that_dies_ends_the_others(shop: Shop) -> None:
    """What supervises the worker sees that a part of it is gone."""
    with running(shop) as (process, members):
        os.kill(members[0], signal.SIGKILL)
        code = process.wait(30)

    assert code == 1
    assert not [pid for pid in members if _is_alive(pid)]


@pytest.mark.slow
def test_workers_of_members_do_not_outlive_a_killed_parent(shop: Shop) -> None:
    """`kill -9` of the one process leaves no workers behind."""
    with running(shop) as (process, members):
        process.kill()
        process.wait(30)
        processes.wait_until(
            lambda: not [pid for pid in members if _is_alive(pid)], "workers outlive their parent"
        )


def _children(pid: int, count: int) -> list[int]:
    def found() -> list[int]:
        return [each.pid for each in processes._processes() if each.parent == pid]

    processes.wait_until(lambda: len(found()) >= count, "the members' workers do not start")
    return found()


def _is_alive(pid: int) -> bool:
    return any(each.pid == pid and not each.is_dead for each in processes._processes())
