"""Putting jobs into the file."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import FrameType
from typing import Any

import pytest

from dispatchers.sqlite import (
    Finish,
    Put,
    SQLiteStore,
    StoreBusyError,
    StoreClosedError,
    StoreFullError,
    StoreInputError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

from ...timing import within  # noqa: TID252 - as for the other cases


def test_a_job_comes_out_as_it_went_in(desk: Any, store: SQLiteStore, owner: str) -> None:
    """Every field of a job that was put is in the job that is claimed."""
    job = desk.job("a", body=b"\x00\xff", priority=7, run_at=1.5, key="k\x00ey", attempt=3)

    stored = store.put(job, timeout=1)
    [claimed] = store.exchange([], owner=owner, queues=["default"], limit=5, timeout=1).jobs

    assert stored == (Put.INSERTED, "a")
    expected = job._asdict()
    assert expected.pop("digest") is None  # it stays in the file: a claim has no use for it
    assert {name: getattr(claimed, name) for name in expected} == expected


def test_the_same_id_is_a_duplicate(desk: Any, store: SQLiteStore) -> None:
    """C10: the id of a request serves as its key."""
    job = desk.job("a")

    answers = [store.put(job, timeout=1), store.put(job, timeout=1)]

    assert answers == [(Put.INSERTED, "a"), (Put.DUPLICATE, "a")]


def test_the_same_key_of_a_task_is_a_duplicate_that_names_the_first(
    desk: Any, store: SQLiteStore
) -> None:
    """C10: keys are scoped by task, and the answer says which job has it."""
    store.put(desk.job("a", key="k"), timeout=1)

    same = store.put(desk.job("b", key="k"), timeout=1)
    other = store.put(desk.job("c", key="k", task="shop.other"), timeout=1)

    assert same == (Put.DUPLICATE, "a")
    assert other == (Put.INSERTED, "c")


def test_several_jobs_are_answered_in_order(desk: Any, store: SQLiteStore) -> None:
    """A batch tells of each of its jobs whether it or which other one is stored."""
    store.put(desk.job("old", key="k"), timeout=1)

    answers = store.put_many(
        [desk.job("a"), desk.job("b", key="k"), desk.job("a"), desk.job("c")], timeout=1
    )

    assert answers == [
        (Put.INSERTED, "a"),
        (Put.DUPLICATE, "old"),
        (Put.DUPLICATE, "a"),
        (Put.INSERTED, "c"),
    ]


@pytest.mark.parametrize("count", [0, 1, 100, 6000])
def test_a_batch_of_any_size_is_stored(desk: Any, store: SQLiteStore, count: int) -> None:
    """A batch may have more rows than one statement takes."""
    jobs = [desk.job() for _ in range(count)]

    answers = store.put_many(jobs, timeout=10)

    assert answers == [(Put.INSERTED, job.id) for job in jobs]
    assert store.counts().ready == count


def test_a_batch_with_a_row_that_cannot_be_stored_stores_none(
    desk: Any, store: SQLiteStore
) -> None:
    """A batch is one transaction."""
    jobs = [desk.job(), desk.job("\ud800")]

    with pytest.raises(StoreInputError) as caught:
        store.put_many(jobs, timeout=1)

    assert not caught.value.maybe_written
    assert store.counts().ready == 0


@pytest.mark.parametrize(
    "values",
    [{"job_id": "\ud800"}, {"priority": 2**70}, {"body": object()}, {"run_at": float("nan")}],
    ids=["surrogate", "huge", "object", "nan"],
)
def test_a_value_that_cannot_be_stored_is_told(
    desk: Any, store: SQLiteStore, values: dict[str, Any]
) -> None:
    """C3: what SQLite cannot hold is certainly not written."""
    with pytest.raises(StoreInputError) as caught:
        store.put(desk.job(**values), timeout=1)

    assert not caught.value.maybe_written
    assert store.put(desk.job(), timeout=1).put is Put.INSERTED


def test_threads_that_wait_are_committed_together(desk: Any, store: SQLiteStore) -> None:
    """While one thread holds the file, the rows of the others gather for one commit."""
    commits = _count_commits(store)
    with ThreadPoolExecutor(8) as pool:
        with store.database.transaction(timeout=1):
            puts = [pool.submit(store.put, desk.job(), timeout=5) for _ in range(8)]
            _until(lambda: len(store.database.line) == 8)
        answers = {put.result().put for put in puts}

    assert answers == {Put.INSERTED}
    assert store.counts().ready == 8
    assert len(commits) <= 3


def test_a_bad_row_fails_none_of_its_neighbours(desk: Any, store: SQLiteStore) -> None:
    """What several threads commit together fails only for the one whose row is at fault."""
    jobs = [desk.job(), desk.job("\ud800"), desk.job()]
    with ThreadPoolExecutor(3) as pool:
        with store.database.transaction(timeout=1):
            puts = [pool.submit(store.put, job, timeout=5) for job in jobs]
            _until(lambda: len(store.database.line) == 3)
        problems = [put.exception() for put in puts]

    assert [type(problem) for problem in problems] == [type(None), StoreInputError, type(None)]
    assert store.counts().ready == 2


def test_a_thread_that_waits_gives_up_at_its_deadline(desk: Any, store: SQLiteStore) -> None:
    """C2: a thread waits for another of its process no longer than its deadline."""
    with ThreadPoolExecutor(1) as pool, store.database.transaction(timeout=1):
        with within(0.3):
            problem = pool.submit(store.put, desk.job(), timeout=0.3).exception()

    assert isinstance(problem, StoreBusyError)
    assert not problem.maybe_written
    assert store.counts().ready == 0


def test_a_locked_file_is_told_at_the_deadline(desk: Any, store: SQLiteStore) -> None:
    """C2, C3: while another process writes for long, the answer comes in time and is certain."""
    store.open(timeout=1)
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with within(0.3), pytest.raises(StoreBusyError) as caught:
            store.put(desk.job("a"), timeout=0.3)
        elapsed = time.monotonic() - started
        other.execute("ROLLBACK")

    assert elapsed >= 0.3
    assert not caught.value.maybe_written
    assert store.put(desk.job("a"), timeout=1).put is Put.INSERTED


def test_a_lock_that_ends_in_time_is_waited_for(desk: Any, store: SQLiteStore) -> None:
    """A put that finds the file held tries again until its deadline."""
    store.open(timeout=1)
    with closing(
        sqlite3.connect(desk.path, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.2, other.execute, ["ROLLBACK"]).start()
        stored = store.put(desk.job(), timeout=10)

    assert stored.put is Put.INSERTED


def test_a_full_disk_is_told_at_once(desk: Any, store: SQLiteStore) -> None:
    """C2, C3: without room the answer is certain, and room found later is used."""
    store.open(timeout=1)
    connection = store.database._slot.connection
    connection.execute("PRAGMA max_page_count = 1")

    with pytest.raises(StoreFullError) as caught:
        store.put_many([desk.job(body=bytes(4000)) for _ in range(9)], timeout=1)

    assert not caught.value.maybe_written
    assert store.put(desk.job(), timeout=1).put is Put.INSERTED


def test_an_error_of_the_disk_leaves_it_open(desk: Any, store: SQLiteStore) -> None:
    """C3: an input or output error while committing may have written; afterwards all works."""
    script = """
import resource, signal, sys
from dispatchers.sqlite import NewJob, SQLiteStore, StoreUnavailableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SQLiteStore(sys.argv[1])
store.open(timeout=5)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    store.put(NewJob("a", "t", "q", bytes(1_000_000)), timeout=5)
except StoreUnavailableError as exc:
    assert exc.maybe_written, "an error in the commit is not certain"
else:
    raise AssertionError("it was written")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert store.put(NewJob("b", "t", "q", b""), timeout=5).put == "inserted"
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(desk.path)],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert store.counts().ready == 1


def test_a_file_that_cannot_be_written_is_told(desk: Any, store: SQLiteStore) -> None:
    """C3: a read-only file is a certain answer of its own kind."""
    store.open(timeout=1)
    store.database._slot.connection.execute("PRAGMA query_only = 1")

    with pytest.raises(StoreReadOnlyError) as caught:
        store.put(desk.job(), timeout=1)

    assert not caught.value.maybe_written


def test_a_missing_directory_is_told(tmp_path: Any, desk: Any) -> None:
    """C3: a path that cannot be opened is a certain answer with the cure."""
    store = SQLiteStore(tmp_path / "missing" / "queue.db")

    with pytest.raises(StoreUnavailableError, match="directory exists") as caught:
        store.put(desk.job(), timeout=1)

    assert not caught.value.maybe_written


def test_a_closed_store_says_so(desk: Any, store: SQLiteStore) -> None:
    """C8: after `close` nothing is written, and the answer says why."""
    store.put(desk.job(), timeout=1)

    closed = store.close()

    assert closed
    with pytest.raises(StoreClosedError):
        store.put(desk.job(), timeout=1)


def test_a_signal_handler_may_put_while_its_thread_does(
    desk: Any, store: SQLiteStore, on_signal: Any
) -> None:
    """C8: a handler that runs in the middle of a put or a batch can put as well."""
    answers: list[Put] = []
    store.open(timeout=1)

    def put(_number: int, _frame: FrameType | None) -> None:
        answers.append(store.put(desk.job(), timeout=5).put)

    with on_signal(signal.SIGALRM, put, every=0.004):
        _put_for(desk, store, 1.0)

    assert len(answers) > 20
    assert set(answers) == {Put.INSERTED}


def test_a_signal_handler_may_write_what_its_thread_was_about_to(
    desk: Any, store: SQLiteStore
) -> None:
    """C8: a put that a handler interrupted finds its own rows written, and only once."""
    store.open(timeout=1)
    connection = store.database._slot.connection
    take = store._puts._take

    def interrupted() -> Any:
        store._puts._take = take  # type: ignore[method-assign]
        store.put_many([desk.job("handler")], timeout=1)
        return take()

    store._puts._take = interrupted  # type: ignore[method-assign]
    answers = store.put_many([desk.job("a"), desk.job("b")], timeout=1)

    assert [answer.put for answer in answers] == [Put.INSERTED, Put.INSERTED]
    assert store.counts().ready == 3
    assert store.database._slot.connection is connection


def test_a_signal_handler_inside_a_transaction_is_refused_at_once(
    desk: Any, store: SQLiteStore, on_signal: Any
) -> None:
    """C8: a put below an open transaction of its own thread cannot be confirmed: it says no."""
    problems: list[StoreBusyError] = []

    def put(_number: int, _frame: FrameType | None) -> None:
        with pytest.raises(StoreBusyError) as caught:
            store.put(desk.job(), timeout=60)
        problems.append(caught.value)

    with (
        on_signal(signal.SIGUSR1, put),
        store.database.transaction(timeout=1) as connection,
    ):
        connection.execute("DELETE FROM jobs")
        signal.raise_signal(signal.SIGUSR1)
        connection.execute("DELETE FROM jobs")

    assert not problems[0].maybe_written


def test_an_interrupt_leaves_the_store_usable(
    desk: Any, store: SQLiteStore, on_signal: Any
) -> None:
    """C1, C8: an exception from a signal handler passes, and the next put works."""
    raised = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for _ in range(30):
        try:
            with on_signal(signal.SIGALRM, interrupt, every=0.004):
                _put_for(desk, store, 0.1)
        except KeyboardInterrupt:
            raised += 1
        assert store.put(desk.job(), timeout=1).put is Put.INSERTED
        with closing(sqlite3.connect(desk.path, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

    assert raised == 30


def test_a_finished_job_is_remembered_for_its_retention(desk: Any) -> None:
    """C10: the id and the key of a finished job deduplicate until they are forgotten."""
    store = desk.open(retention=100)
    owner = store.owners.register(timeout=1)
    store.put(desk.job("a", key="k"), timeout=1)
    jobs = store.exchange([], owner=owner, queues=None, limit=1, timeout=1).jobs

    store.exchange([Finish.done(job) for job in jobs], owner=owner, queues=None, limit=0, timeout=1)

    assert store.put(desk.job("a"), timeout=1) == (Put.DUPLICATE, "a")
    assert store.put(desk.job("b", key="k"), timeout=1) == (Put.DUPLICATE, "a")


def test_without_retention_a_finished_job_is_forgotten_at_once(desk: Any) -> None:
    """Retention 0 keeps nothing of a finished job."""
    store = desk.open(retention=0)
    owner = store.owners.register(timeout=1)
    store.put(desk.job("a", key="k"), timeout=1)
    jobs = store.exchange([], owner=owner, queues=None, limit=1, timeout=1).jobs

    store.exchange([Finish.done(job) for job in jobs], owner=owner, queues=None, limit=0, timeout=1)

    assert store.put(desk.job("a", key="k"), timeout=1) == (Put.INSERTED, "a")


def _count_commits(store: SQLiteStore) -> list[str]:
    store.open(timeout=1)
    statements: list[str] = []
    store.database._slot.connection.set_trace_callback(
        lambda sql: statements.append(sql) if sql.startswith("INSERT") else None
    )
    return statements


def _until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def _put_for(desk: Any, store: SQLiteStore, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        store.put(desk.job(), timeout=5)
        store.put_many([desk.job() for _ in range(20)], timeout=5)


def test_a_key_with_another_digest_is_a_conflict(desk: Any, store: SQLiteStore) -> None:
    """C10: a key stands for one piece of work; files of before, without digests, are not asked."""
    store.put(desk.job("a", key="k", digest=b"1"), timeout=1)
    store.put(desk.job("b", key="old"), timeout=1)

    same, other, old = (
        store.put(desk.job(key=key, digest=digest), timeout=1)
        for key, digest in (("k", b"1"), ("k", b"2"), ("old", b"3"))
    )

    assert (same, other, old) == (
        (Put.DUPLICATE, "a"), (Put.CONFLICT, "a"), (Put.DUPLICATE, "b"),
    )  # fmt: skip


@pytest.mark.parametrize("key", [None, "k"])
def test_a_dead_job_lets_go_of_its_id(desk: Any, store: SQLiteStore, owner: str, key: Any) -> None:
    """C10: the same request after its death is new work, once."""
    job = desk.job("a", key=key, body=b"new")
    store.put(desk.job("a", key=key, body=b"old"), timeout=1)
    [claimed] = store.exchange([], owner=owner, queues=None, limit=5, timeout=1).jobs
    dead = Finish.dead(claimed, reason="permanent")
    store.exchange([dead], owner=owner, queues=None, limit=0, timeout=1)

    answers = [store.put(job, timeout=1).put, store.put(job, timeout=1).put]
    [again] = store.exchange([], owner=owner, queues=None, limit=5, timeout=1).jobs

    assert answers == [Put.INSERTED, Put.DUPLICATE]
    assert (again.body, again.attempt, again.deliveries) == (b"new", 1, 1)
    assert store.dead.list() == []


def test_a_dead_job_whose_key_is_taken_stays_dead(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """C10: the same request after its death is a duplicate of newer work under its key."""
    first = desk.job("a", key="k")
    store.put(first, timeout=1)
    [claimed] = store.exchange([], owner=owner, queues=None, limit=5, timeout=1).jobs
    dead = Finish.dead(claimed, reason="permanent")
    store.exchange([dead], owner=owner, queues=None, limit=0, timeout=1)
    store.put(desk.job("b", key="k"), timeout=1)

    assert store.put(first, timeout=1) == (Put.DUPLICATE, "b")
    assert len(store.dead.list()) == 1
