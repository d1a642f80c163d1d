"""Forks and exits with open connections."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dispatchers.sqlite import Database, Put, SQLiteStore, StoreUnavailableError
from dispatchers.sqlite._lock_wait import Contention

from ..forking import ran  # noqa: TID252 - as for the other cases

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def test_parent_and_child_write_after_a_fork(desk: Any, store: SQLiteStore, in_child: Any) -> None:
    """C8: after a fork with an open connection both sides work, and nothing is lost."""
    store.put(desk.job("before"), timeout=1)

    def work() -> None:
        for number in range(50):
            assert store.put(desk.job(f"child-{number}"), timeout=5).put is Put.INSERTED

    code = in_child(work)
    store.put(desk.job("after"), timeout=1)

    assert code == 0
    store.close()
    assert desk.open().counts().ready == 52


def test_both_sides_write_at_the_same_time(desk: Any, store: SQLiteStore) -> None:
    """C8: parent and children write to one file at once."""
    store.put(desk.job("before"), timeout=1)
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for number in range(40):
                    store.put(desk.job(f"{child}-{number}"), timeout=10)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for number in range(40):
        store.put(desk.job(f"parent-{number}"), timeout=10)

    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]

    assert codes == [0, 0, 0, 0]
    assert store.counts().ready == 1 + 5 * 40


def test_a_child_of_a_child_works(desk: Any, store: SQLiteStore, in_child: Any) -> None:
    """C8: the same holds for grandchildren."""
    store.put(desk.job("parent"), timeout=1)

    def work() -> None:
        store.put(desk.job("child"), timeout=1)
        assert in_child(lambda: store.put(desk.job("grandchild"), timeout=1)) == 0
        store.put(desk.job("child again"), timeout=1)

    code = in_child(work)

    assert code == 0
    assert store.counts().ready == 4


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # 3.12: threads and fork
def test_a_fork_waits_for_the_transactions_of_other_threads(
    desk: Any, store: SQLiteStore, in_child: Any
) -> None:
    """C8: threads that write while the process forks lose nothing, in neither process."""
    store.open(timeout=1)
    stop = threading.Event()
    written: list[str] = []

    def produce(name: int) -> None:
        number = 0
        while not stop.is_set():
            written.append(store.put(desk.job(f"{name}-{number}"), timeout=10).id)
            number += 1

    with ThreadPoolExecutor(4) as pool:
        producers = [pool.submit(produce, name) for name in range(4)]
        codes = [
            in_child(lambda fork=fork: store.put(desk.job(f"fork-{fork}"), timeout=10))
            for fork in range(20)
        ]
        stop.set()
        for producer in producers:
            producer.result()

    assert codes == [0] * 20
    assert store.counts().ready == len(written) + 20


def test_a_fork_inside_a_transaction_ends_it_with_a_reason(
    desk: Any, store: SQLiteStore, in_child: Any
) -> None:
    """C8: a transaction cannot span a fork; both sides are told, and work afterwards."""
    store.open(timeout=1)

    def insert() -> None:
        with store.database.transaction(timeout=1) as connection:
            codes.append(in_child(lambda: store.put(desk.job("child"), timeout=1)))
            connection.execute("DELETE FROM jobs")

    codes: list[int] = []
    with pytest.raises(StoreUnavailableError, match="fork") as caught:
        insert()

    assert codes == [0]
    assert not caught.value.maybe_written
    assert store.put(desk.job("parent"), timeout=1).put is Put.INSERTED
    assert store.counts().ready == 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_does_not_wait_for_ever(
    desk: Any, store: SQLiteStore, in_child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8: where a transaction of another thread does not end, the child is told and not misled."""
    monkeypatch.setattr("dispatchers.sqlite._process_connection._FORK_WAIT", 0.05)
    store.open(timeout=1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.database.transaction(timeout=1) as connection:
            connection.execute("DELETE FROM jobs")
            entered.set()
            leave.wait(10)

    def refused() -> None:
        with pytest.raises(StoreUnavailableError, match="forked inside a transaction"):
            store.put(desk.job(), timeout=1)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hold)
        entered.wait(10)
        code = in_child(refused)
        leave.set()
        running.result()

    assert code == 0
    assert store.put(desk.job(), timeout=1).put is Put.INSERTED


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_waits_for_other_processes(
    desk: Any, store: SQLiteStore, in_child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8: a thread that waits for the file holds no fork up; all three write when it is free."""
    monkeypatch.setattr("dispatchers.sqlite._process_connection._FORK_WAIT", 1.0)
    store.put(desk.job("first"), timeout=1)
    script = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], isolation_level=None).execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read(1)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(desk.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    waits, seen = threading.Event(), Contention.seen

    def noticed(self: Contention, now: float) -> None:
        waits.set()
        seen(self, now)

    monkeypatch.setattr(Contention, "seen", noticed)

    def write() -> None:
        os.write(other.stdin.fileno(), b"x")  # the other process ends
        store.put(desk.job("child"), timeout=20)

    with other, ThreadPoolExecutor(1) as pool:
        other.stdout.readline()
        mine = pool.submit(store.put, desk.job("parent"), timeout=20)
        assert waits.wait(10)
        code = in_child(write)
        mine.result()

    assert code == 0
    assert store.counts().ready == 3


def test_a_file_that_was_emptied_is_not_written_to(desk: Any) -> None:
    """C9: what is confirmed after `> queue.db` is found by a process that opens the file."""
    store = desk.open()
    store.put(desk.job("before"), timeout=1)
    os.truncate(desk.path, 0)

    answer = store.put(desk.job("own"), timeout=1)
    script = "import sys; from dispatchers.sqlite import SQLiteStore as S; "
    script += "print(S(sys.argv[1]).counts().ready)"
    seen = subprocess.run(
        [sys.executable, "-c", script, str(desk.path)], check=True, capture_output=True, text=True
    )

    assert (answer.put, seen.stdout) == (Put.INSERTED, "2\n")  # the log had the first still


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_gone_is_not_written_to(desk: Any, replaced: bool) -> None:
    """C9: what is confirmed is in the file that others see, and their log is left intact."""
    script = """
import os, sys
from dispatchers.sqlite import NewJob, SQLiteStore
SQLiteStore(sys.argv[1]).put(NewJob("other", "t", "q", b""), timeout=5)
os._exit(0)  # without closing, so that the job is in the log alone
"""
    store = desk.open()
    store.put(desk.job("lost"), timeout=1)
    for path in desk.path.parent.iterdir():
        path.unlink()
    if replaced:
        subprocess.run([sys.executable, "-c", script, str(desk.path)], check=True)

    store.put(desk.job("own"), timeout=1)
    store.close()

    assert desk.open().counts().ready == 1 + replaced


@pytest.mark.parametrize("companion", ["-wal", "-shm"])
def test_a_log_that_is_gone_is_not_written_to(desk: Any, companion: str) -> None:
    """C9: a job that is confirmed after the log was deleted is in the log that others see."""
    store = desk.open()
    store.put(desk.job("before"), timeout=1)
    Path(f"{desk.path}{companion}").unlink()

    store.put(desk.job("after"), timeout=1)
    script = "import sys; from dispatchers.sqlite import SQLiteStore as S; "
    script += "print(S(sys.argv[1]).counts().ready)"
    seen = subprocess.run(
        [sys.executable, "-c", script, str(desk.path)], check=True, capture_output=True, text=True
    )

    assert seen.stdout == "2\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the C library's fork")
def test_a_fork_that_python_does_not_see_is_noticed(desk: Any) -> None:
    """C8: servers written in C fork without Python's hooks; parent and child still work."""
    script = """
        from dispatchers.sqlite import NewJob, SQLiteStore

        def put(job_id):
            store.put(NewJob(job_id, task="shop.mail", queue="default", body=b"{}"), timeout=5)

        store = SQLiteStore(sys.argv[1])
        put("before")
        child = fork_in_c()
        for number in range(20):
            put(f"{'parent' if child else 'child'}-{number}")
        if not child:
            os._exit(7)
        print(exit_code_of(child))
        store.close()
    """

    assert ran(script, desk.path) == "7\n"
    assert desk.open().counts().ready == 41


def test_a_child_has_numbers_of_its_own(desk: Any, store: SQLiteStore) -> None:
    """The marks by which a producer knows its rows are not copied by a fork."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(next(store.database.tokens())).encode())
        os._exit(0)
    os.wait()
    os.close(writer)

    child = int(os.read(reader, 100))
    os.close(reader)

    assert child != next(store.database.tokens())


def test_a_store_that_is_dropped_closes_its_file(desk: Any) -> None:
    """A store that nobody refers to any more leaves no open connection behind."""
    store = SQLiteStore(desk.path)
    store.put(desk.job(), timeout=1)
    connection = store.database._slot.connection

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del store
        gc.collect()

    with pytest.raises(Exception, match="closed database"):
        connection.execute("SELECT 1")


def test_a_process_may_end_while_threads_write(desk: Any) -> None:
    """The interpreter's exit does not crash, hang or complain, and keeps what was confirmed."""
    script = """
import itertools, os, sys, threading, time
from dispatchers.sqlite import NewJob, SQLiteStore
store = SQLiteStore(sys.argv[1])
store.open(timeout=5)
def produce(name):
    for number in itertools.count():
        store.put(NewJob(f"{name}-{number}", "t", "q", b""), timeout=5)
        os.write(1, b"x")
for name in range(4):
    threading.Thread(target=produce, args=(name,), daemon=True).start()
time.sleep(0.3)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(desk.path)],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0
    assert b"ResourceWarning" not in done.stderr
    assert desk.open().counts().ready >= len(done.stdout) > 0


def test_a_finalizer_may_put_while_the_interpreter_ends(desk: Any) -> None:
    """C8: a put from `__del__` during shutdown is written or refused, and never hangs."""
    script = """
import sys
from dispatchers.sqlite import NewJob, SQLiteStore
store = SQLiteStore(sys.argv[1])
store.put(NewJob("early", "t", "q", b""), timeout=5)
class Last:
    def __del__(self, put=store.put, job=NewJob("late", "t", "q", b"")):
        put(job, timeout=1)
keep = Last()
keep.me = keep
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(desk.path)], capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert desk.open().counts().ready in (1, 2)


def test_closing_waits_for_a_running_transaction(desk: Any, store: SQLiteStore) -> None:
    """C8: `close` says whether it is closed or another thread was still at it."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.database.transaction(timeout=1) as connection:
            connection.execute("DELETE FROM jobs")
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hold)
        entered.wait(10)
        early = store.close(timeout=0.05)
        leave.set()
        running.result()
        late = store.close(timeout=5)

    assert (early, late) == (False, True)


def test_what_an_interrupt_left_open_is_undone(desk: Any, store: SQLiteStore) -> None:
    """C8: a transaction that an interrupt left open holds nobody up longer than the next use."""
    store.put(desk.job(), timeout=1)
    connection = store.database._slot.connection
    assert connection is not None
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM jobs")

    store.put(desk.job(), timeout=1)

    assert desk.open().counts().ready == 2
    desk.open().put(desk.job(), timeout=0)


def test_an_error_undoes_its_transaction(desk: Any, store: SQLiteStore) -> None:
    """What a block that raises has changed is not committed."""
    store.put(desk.job(), timeout=1)

    def delete() -> None:
        with store.database.transaction(timeout=1) as connection:
            connection.execute("DELETE FROM jobs")
            raise LookupError

    with pytest.raises(LookupError):
        delete()

    assert store.counts().ready == 1


def test_two_databases_of_one_file_live_in_one_process(desk: Any, store: SQLiteStore) -> None:
    """Opening and closing one does not take the other's locks away."""
    store.put(desk.job(), timeout=1)
    other = Database(desk.path)
    with store.database.transaction(timeout=1) as connection:
        connection.execute("DELETE FROM jobs")
        other.close(1)
        script = (
            "import sys, sqlite3\n"
            "sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        )
        blocked = subprocess.run(
            [sys.executable, "-c", script, str(desk.path)], capture_output=True, check=False
        )

    assert b"database is locked" in blocked.stderr
    assert store.counts().ready == 0
    assert time.monotonic() > 0
