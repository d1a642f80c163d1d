"""Dead jobs: kept, shown, mended, tried again, forgotten."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dispatchers.sqlite import DeadJob, Finish, SQLiteStore, StoreConflictError


@pytest.fixture
def die(desk: Any, store: SQLiteStore, owner: str) -> Any:
    def die(job_id: str, **values: Any) -> None:
        store.put(desk.job(job_id, **values), timeout=1)
        [job] = store.exchange([], owner=owner, queues=None, limit=1, timeout=1).jobs
        finish = Finish.dead(job, reason="exhausted", error_type="ValueError", error="no")
        store.exchange([finish], owner=owner, queues=None, limit=0, timeout=1)

    return die


def test_a_dead_job_tells_what_happened(store: SQLiteStore, die: Any) -> None:
    """A dead job keeps its body, its counts and the reason of its end."""
    die("a", body=b"work", attempt=3, key="k", priority=2)

    dead = store.dead.get("a")

    assert dead is not None
    assert (dead.id, dead.body, dead.attempt, dead.deliveries) == ("a", b"work", 3, 1)
    assert (dead.key, dead.priority) == ("k", 2)
    assert (dead.reason, dead.error_type, dead.error) == ("exhausted", "ValueError", "no")
    assert abs(dead.died_at - time.time()) < 60


def test_dead_jobs_are_listed_latest_first_and_filtered(store: SQLiteStore, die: Any) -> None:
    """The list is bounded and can be asked for one task or queue."""
    die("a", task="one", queue="x")
    die("b", task="two", queue="x")
    die("c", task="one", queue="y")

    listed = [
        [dead.id for dead in store.dead.list(**filters)]
        for filters in ({}, {"limit": 2}, {"task": "one"}, {"queue": "x"}, {"task": "three"})
    ]

    assert listed == [["c", "b", "a"], ["c", "b"], ["c", "a"], ["b", "a"], []]


def test_a_replayed_job_starts_afresh_under_its_id(
    store: SQLiteStore, owner: str, die: Any
) -> None:
    """Replay forgets attempts, deliveries and expiry, and keeps the id."""
    die("a", attempt=4, expires_at=time.time() + 0.2)
    _until_past(time.time() + 0.2)

    replayed = store.dead.replay("a")
    [job] = store.exchange([], owner=owner, queues=None, limit=5, timeout=1).jobs

    assert replayed
    assert (job.id, job.attempt, job.deliveries) == ("a", 1, 1)
    assert store.dead.list() == []


def test_a_body_can_be_mended_before_replay(store: SQLiteStore, owner: str, die: Any) -> None:
    """What runs after an edit is the new body."""
    die("a", body=b"bad")

    edited = store.dead.edit("a", b"good")
    store.dead.replay("a")
    [job] = store.exchange([], owner=owner, queues=None, limit=5, timeout=1).jobs

    assert edited
    assert job.body == b"good"


def test_a_dead_job_releases_its_key(desk: Any, store: SQLiteStore, die: Any) -> None:
    """C10: work that was given up does not stand in the way of new work under its key."""
    die("a", key="k")

    stored = store.put(desk.job("b", key="k"), timeout=1)

    assert stored == ("inserted", "b")


def test_a_replay_beside_a_newer_job_of_its_key_is_refused(
    desk: Any, store: SQLiteStore, die: Any
) -> None:
    """C10: two jobs of one key are never alive together."""
    die("a", key="k")
    store.put(desk.job("b", key="k"), timeout=1)

    with pytest.raises(StoreConflictError):
        store.dead.replay("a")

    assert store.dead.get("a") is not None


def test_a_dead_job_can_be_forgotten(desk: Any, store: SQLiteStore, die: Any) -> None:
    """A deleted job leaves nothing, not even its id."""
    die("a")

    deleted = [store.dead.delete("a"), store.dead.delete("a")]

    assert deleted == [True, False]
    assert store.put(desk.job("a"), timeout=1) == ("inserted", "a")


def test_only_dead_jobs_are_touched(desk: Any, store: SQLiteStore) -> None:
    """A job that waits cannot be edited, replayed or deleted by way of the dead."""
    store.put(desk.job("a", body=b"own"), timeout=1)

    touched = [
        store.dead.edit("a", b"x"),
        store.dead.replay("a"),
        store.dead.delete("a"),
        store.dead.get("a"),
    ]

    assert touched == [False, False, False, None]
    assert store.counts().ready == 1


def test_what_died_elsewhere_can_be_buried_here(desk: Any, store: SQLiteStore) -> None:
    """C11: the store keeps dead letters of other transports; the same id is replaced."""
    letter = DeadJob("x", "t", "q", 0, None, 2, 3, 1.0, 5.0, "why", "E", "text", b"body")
    store.dead.bury(letter)
    later = DeadJob("x", "t", "q", 0, None, 4, 5, 1.0, 6.0, "again", "E", "text", b"body2")

    store.dead.bury(later)

    [kept] = store.dead.list()
    assert (kept.attempt, kept.deliveries, kept.reason) == (4, 5, "again")
    assert (kept.died_at, kept.body) == (6.0, b"body2")


def test_burying_never_replaces_a_job_that_is_alive(desk: Any, store: SQLiteStore) -> None:
    """C9: a dead letter of an id that waits here does not take its place."""
    store.put(desk.job("x"), timeout=1)

    with pytest.raises(StoreConflictError):
        store.dead.bury(DeadJob("x", "t", "q", 0, None, 1, 1, 1.0, 5.0, "r", "", "", b""))

    assert store.counts().ready == 1


def _until_past(instant: float) -> None:
    while time.time() <= instant:
        time.sleep(0.01)
