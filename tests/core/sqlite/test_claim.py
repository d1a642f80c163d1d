"""Claiming jobs and settling them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dispatchers.sqlite import Exchange, Finish, Job, SQLiteStore, _claim
from dispatchers.sqlite._claim import _ANY_DUE, _ANY_READY, _PROMOTE, _PURGE, _heads_of

READY = "USING COVERING INDEX ready (state=? AND queue=?)"
DELAYED = "USING COVERING INDEX delayed (state=? AND run_at<?)"
FINISHED = "USING COVERING INDEX finished (state=? AND finished_at<?)"


def take(store: SQLiteStore, owner: str, limit: int = 100, **options: Any) -> list[Job]:
    options = {"queues": ["default"], "timeout": 5} | options
    return store.exchange([], owner=owner, limit=limit, **options).jobs


def settle(store: SQLiteStore, owner: str, *finished: Finish) -> Exchange:
    return store.exchange(finished, owner=owner, queues=None, limit=0, timeout=5)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_the_highest_priority_comes_first_then_the_oldest(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """A claim takes the highest priority first and keeps the order of time within one."""
    for job_id, priority in [("a", 0), ("b", -5), ("c", 5), ("d", 0), ("e", 5)]:
        store.put(desk.job(job_id, priority=priority), timeout=1)

    jobs = take(store, owner)

    assert ids(jobs) == ["c", "e", "a", "d", "b"]


@pytest.mark.parametrize(
    ("queues", "expected"),
    [(["one"], ["a", "d"]), (["two", "one", "two"], ["b", "a", "d"]), (None, ["b", "a", "c", "d"])],
    ids=["one", "several", "all"],
)
def test_a_claim_serves_the_queues_it_names(
    desk: Any, store: SQLiteStore, owner: str, queues: list[str] | None, expected: list[str]
) -> None:
    """A worker gets jobs of its queues only, the best of all of them first."""
    store.put(desk.job("a", queue="one"), timeout=1)
    store.put(desk.job("b", queue="two", priority=1), timeout=1)
    store.put(desk.job("c", queue="three"), timeout=1)
    store.put(desk.job("d", queue="one"), timeout=1)

    jobs = take(store, owner, queues=queues)

    assert ids(jobs) == expected


def test_a_claim_over_several_queues_keeps_its_limit(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """The limit is of the whole claim, not of each queue."""
    for number in range(6):
        store.put(desk.job(f"{number}", queue=f"q{number % 2}"), timeout=1)

    jobs = take(store, owner, 3, queues=["q0", "q1"])

    assert ids(jobs) == ["0", "1", "2"]


def test_no_job_is_claimed_twice(desk: Any, store: SQLiteStore, owner: str) -> None:
    """What an owner holds is not given to another."""
    other = store.owners.register(timeout=1)
    store.put_many([desk.job() for _ in range(10)], timeout=1)

    first, second = take(store, owner, 6), take(store, other, 6)

    assert len(first) == 6
    assert len(second) == 4
    assert not set(ids(first)) & set(ids(second))


def test_a_delayed_job_waits_for_its_time(
    desk: Any, store: SQLiteStore, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is not claimed before its `run_at`, and is claimed after it."""
    due = time.time() + 1000
    store.put(desk.job("later", run_at=due), timeout=1)
    store.put(desk.job("never", run_at=due + 1000), timeout=1)

    monkeypatch.setattr(time, "time", lambda: due - 0.001)
    early = take(store, owner)
    monkeypatch.setattr(time, "time", lambda: due + 0.001)
    late = take(store, owner)

    assert (ids(early), ids(late)) == ([], ["later"])
    assert store.counts().delayed == 1


def test_an_expired_job_is_put_aside(desk: Any, store: SQLiteStore, owner: str) -> None:
    """A job past `expires_at` is not run: it is finished as expired, and counted."""
    store.put(desk.job("old", expires_at=time.time() - 1), timeout=1)
    store.put(desk.job("new", expires_at=time.time() + 1000), timeout=1)

    exchange = store.exchange([], owner=owner, queues=None, limit=5, timeout=1)

    assert ids(exchange.jobs) == ["new"]
    assert exchange.expired == 1
    assert store.counts().expired == 1


def test_an_expired_step_is_handed_to_a_child(desk: Any, store: SQLiteStore, owner: str) -> None:
    """Its execution waits for an answer, which is the child's to give."""
    body = b'{"headers":{"dispatchers-step":"shop.flow/1/1"}}'
    store.put(desk.job("step", expires_at=time.time() - 1, body=body), timeout=1)

    exchange = store.exchange([], owner=owner, queues=None, limit=5, timeout=1)

    assert ids(exchange.jobs) == ["step"]
    assert exchange.expired == 0


def test_an_expired_job_releases_its_key(desk: Any, store: SQLiteStore, owner: str) -> None:
    """C10: the key of a job that never ran is free for another."""
    store.put(desk.job("old", key="k", expires_at=time.time() - 1), timeout=1)
    take(store, owner)

    stored = store.put(desk.job("new", key="k"), timeout=1)

    assert stored == ("inserted", "new")


def test_a_done_job_drops_its_body(desk: Any, store: SQLiteStore, owner: str) -> None:
    """Finished jobs keep what deduplicates and nothing else."""
    store.put(desk.job("a", body=b"secret-of-the-job"), timeout=1)

    settle(store, owner, *map(Finish.done, take(store, owner)))
    store.close()

    assert b"secret-of-the-job" not in desk.path.read_bytes()


def test_a_retry_is_the_next_attempt_with_fresh_deliveries(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """C10: attempts and deliveries are counted apart."""
    store.put(desk.job("a"), timeout=1)
    [job] = take(store, owner)
    settle(store, owner, Finish.give_back(job))
    [job] = take(store, owner)

    settle(store, owner, Finish.retry(job))
    [again] = take(store, owner)

    assert (job.attempt, job.deliveries) == (1, 2)
    assert (again.attempt, again.deliveries) == (2, 1)


def test_a_retry_waits_for_its_time(desk: Any, store: SQLiteStore, owner: str) -> None:
    """The next attempt is not made before its back-off is over."""
    store.put(desk.job("a"), timeout=1)
    [job] = take(store, owner)

    settle(store, owner, Finish.retry(job, run_at=time.time() + 1000))

    assert take(store, owner) == []
    assert store.counts().delayed == 1


@pytest.mark.parametrize(("counted", "deliveries"), [(True, 2), (False, 1)])
def test_a_job_given_back_keeps_its_attempt_and_its_place(
    desk: Any, store: SQLiteStore, owner: str, counted: bool, deliveries: int
) -> None:
    """C10: giving back is no attempt, and no delivery either if it never started."""
    store.put_many([desk.job("a"), desk.job("b")], timeout=1)
    [job] = take(store, owner, 1)

    settle(store, owner, Finish.give_back(job, counted=counted))
    again = take(store, owner)

    assert ids(again) == ["a", "b"]
    assert (again[0].attempt, again[0].deliveries) == (1, deliveries)


def test_a_job_given_back_for_later_waits(desk: Any, store: SQLiteStore, owner: str) -> None:
    """C11: what a worker does not understand yet is handed back with a pause."""
    store.put(desk.job("a"), timeout=1)
    [job] = take(store, owner)

    settle(store, owner, Finish.give_back(job, run_at=time.time() + 1000))

    assert take(store, owner) == []


def test_a_settlement_counts_once(desk: Any, store: SQLiteStore, owner: str) -> None:
    """Exactly one result is recorded: a settlement of an ended claim is refused."""
    store.put(desk.job("a"), timeout=1)
    [job] = take(store, owner)
    settle(store, owner, Finish.retry(job))

    late = [Finish.done(job), Finish.dead(job, reason="x"), Finish.give_back(job)]
    exchange = settle(store, owner, *late)

    assert exchange.lost == late
    assert store.counts().ready == 1


@pytest.mark.parametrize("retention", [0.0, 3600.0])
def test_a_lost_settlement_among_others_is_the_only_one_refused(
    desk: Any, retention: float
) -> None:
    """A batch is settled in one call for all; one whose claim has ended spoils no other."""
    store = desk.open(retention=retention)
    owner = store.owners.register(timeout=1)
    store.put_many([desk.job(name) for name in "abc"], timeout=1)
    jobs = take(store, owner)
    settle(store, owner, Finish.retry(jobs[1]))

    exchange = settle(store, owner, *map(Finish.done, jobs))

    assert exchange.lost == [Finish.done(jobs[1])]
    found = store.counts()
    assert (found.ready, found.running, found.done) == (1, 0, 2 if retention else 0)


def test_a_settlement_may_be_repeated_after_an_unclear_answer(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """A worker that does not know whether its commit arrived settles again, and is not refused."""
    store.put(desk.job("a"), timeout=1)
    [job] = take(store, owner)

    lost = [settle(store, owner, Finish.done(job)).lost for _ in range(2)]

    assert lost == [[], []]
    assert store.counts().done == 1


def test_a_late_settlement_does_not_touch_the_next_job_in_its_place(desk: Any) -> None:
    """A forgotten job's row is used again; its claim's number is not."""
    store = desk.open(retention=0)
    owner = store.owners.register(timeout=1)
    store.put(desk.job("a"), timeout=1)
    [old] = take(store, owner)
    settle(store, owner, Finish.done(old))
    store.put(desk.job("b"), timeout=1)
    [new] = take(store, owner)

    lost = settle(store, owner, Finish.done(old)).lost

    assert new.seq == old.seq
    assert lost == [Finish.done(old)]
    assert store.counts().running == 1


def test_settling_and_claiming_is_one_transaction(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """A worker settles one batch and gets the next in a single commit."""
    store.put_many([desk.job() for _ in range(4)], timeout=1)
    jobs = take(store, owner, 2)
    statements: list[str] = []
    store.database._slot.connection.set_trace_callback(statements.append)

    exchange = store.exchange(
        [Finish.done(job) for job in jobs], owner=owner, queues=None, limit=2, timeout=1
    )

    assert len(exchange.jobs) == 2
    assert [sql for sql in statements if sql.startswith(("BEGIN", "COMMIT"))] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


def test_an_idle_worker_does_not_write(desk: Any, store: SQLiteStore, owner: str) -> None:
    """Asking an empty queue takes no write lock."""
    statements: list[str] = []
    store.database._slot.connection.set_trace_callback(statements.append)

    take(store, owner)

    assert not [sql for sql in statements if sql.startswith("BEGIN")]


def test_an_owner_that_is_gone_gets_nothing(desk: Any, store: SQLiteStore, owner: str) -> None:
    """An owner whose lease was lost is told, and claims nothing."""
    store.put(desk.job(), timeout=1)
    store.owners.leave(owner, timeout=1)

    exchange = store.exchange([], owner=owner, queues=None, limit=1, timeout=1)

    assert not exchange.alive
    assert exchange.jobs == []


def test_workers_purge_what_is_past_its_retention(desk: Any, monkeypatch: Any) -> None:
    """Growth is bounded: finished jobs past their retention go while workers work."""
    store = desk.open(retention=10)
    owner = store.owners.register(timeout=1)
    store.put_many([desk.job() for _ in range(20)], timeout=1)
    settle(store, owner, *map(Finish.done, take(store, owner, 10)))
    [job, *_] = take(store, owner, 10)
    later = time.time() + 11
    monkeypatch.setattr(time, "time", lambda: later)

    settle(store, owner, Finish.done(job))

    assert store.counts().done == 1


def test_workers_look_for_finished_jobs_now_and_then(
    desk: Any, store: SQLiteStore, owner: str, monkeypatch: Any
) -> None:
    """To find none costs as much as a job: exchanges that follow each other look once."""
    store.put_many([desk.job() for _ in range(5)], timeout=1)
    now = time.time()
    statements: list[str] = []
    with store.database.transaction(timeout=1) as connection:
        connection.set_trace_callback(statements.append)
    looks = []
    for instant in (now, now, now + 60, now + 60, now):  # at the end the clock is set back
        monkeypatch.setattr(time, "time", lambda instant=instant: instant)
        settle(store, owner, *map(Finish.done, take(store, owner, 1)))
        looks.append(sum(sql.lstrip().startswith("DELETE FROM jobs") for sql in statements))
        statements.clear()

    connection.set_trace_callback(None)
    assert [bool(count) for count in looks] == [True, False, True, False, True]


def test_purging_goes_in_small_steps(desk: Any, store: SQLiteStore, owner: str) -> None:
    """One purge deletes no more than its limit, so that nobody waits for it."""
    store.retention = 0.001
    store.put_many([desk.job() for _ in range(20)], timeout=1)
    settle(store, owner, *map(Finish.done, take(store, owner)))
    time.sleep(0.01)

    assert store.purge(timeout=1, limit=15) == 15
    assert store.purge(timeout=1, limit=15) == 5


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (
            _heads_of(1),
            {"q0": "a", "limit": 5},
            READY,
        ),
        (
            _heads_of(2),
            {"q0": "a", "q1": "b", "limit": 5},
            READY,
        ),
        (_PROMOTE, {"now": 1.0, "limit": 5}, DELAYED),
        (_ANY_READY, ("a",), READY),
        (_ANY_DUE, (1.0,), DELAYED),
        (_PURGE, (2, 1.0, 5), FINISHED),
    ],
    ids=["claim", "claim-two", "promote", "ready", "due", "purge"],
)
def test_no_statement_of_a_worker_scans_what_waits(
    store: SQLiteStore, owner: str, statement: str, values: Any, index: str
) -> None:
    """Waiting delayed rows are never scanned: every statement reads the head of an index."""
    connection = store.database._slot.connection

    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert any(index in line for line in plan), plan
    assert not [line for line in plan if line.startswith("SCAN jobs")]
    assert [line for line in plan if "TEMP B-TREE" in line] == [
        line for line in plan if "q1" in str(values) and "TEMP B-TREE" in line
    ]


@pytest.mark.parametrize("named", [True, False])
def test_ten_thousand_queues_are_all_served(
    desk: Any, store: SQLiteStore, owner: str, *, named: bool
) -> None:
    """No limit of a statement decides which queues are served."""
    names = [f"q-{n:05}" for n in range(10_000)]
    store.put_many([desk.job(queue=name) for name in names], timeout=30)
    urgent = desk.job(queue="q-09999", priority=100)
    store.put(urgent, timeout=5)

    first = take(store, owner, 50, queues=names if named else None)
    rest = take(store, owner, 20_000, queues=names if named else None)

    assert first[0].id == urgent.id
    assert {job.queue for job in [*first, *rest]} == set(names)


def test_a_claim_takes_no_more_bytes_than_it_may(
    desk: Any, store: SQLiteStore, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large envelopes are claimed a few at a time, the first in order; one is taken always."""
    monkeypatch.setattr(_claim, "_BYTES", 1000)
    jobs = [desk.job(body=b"x" * 600, priority=-n) for n in range(5)]
    store.put_many(jobs, timeout=5)

    assert [job.id for job in take(store, owner)] == [jobs[0].id, jobs[1].id]
    assert [job.id for job in take(store, owner)] == [jobs[2].id, jobs[3].id]
