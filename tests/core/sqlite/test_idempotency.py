"""The idempotency store in a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers.sqlite import SQLiteIdempotencyStore


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[SQLiteIdempotencyStore]:
    store = SQLiteIdempotencyStore(tmp_path / "claims.db")
    yield store
    store.close()


@pytest.fixture
def clock(claims: SQLiteIdempotencyStore) -> list[float]:
    now = [1000.0]
    claims._clock = lambda: now[0]
    return now


def test_the_first_owner_gets_the_key(claims: SQLiteIdempotencyStore) -> None:
    """C10: one owner runs the work, another is told when to look again."""
    first = claims.claim("k", "a", 10)
    second = claims.claim("k", "b", 10)

    assert first.state == "claimed"
    assert second.state == "busy"
    assert 9 < second.retry_after <= 10


def test_the_owner_may_claim_again(claims: SQLiteIdempotencyStore) -> None:
    """An owner that asks twice has the key, not a quarrel with itself."""
    claims.claim("k", "a", 10)

    again = claims.claim("k", "a", 10)

    assert again.state == "claimed"


def test_a_completed_key_is_done(claims: SQLiteIdempotencyStore) -> None:
    """C10: work that was done is not done again."""
    claims.claim("k", "a", 10)

    completed = claims.complete("k", "a", 100)

    assert completed
    assert claims.claim("k", "b", 10).state == "done"
    assert claims.claim("k", "a", 10).state == "done"


def test_a_completed_key_is_forgotten_after_its_time(
    claims: SQLiteIdempotencyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is remembered for as long as it was asked to be, and its row goes."""
    claims.claim("k", "a", 10)
    claims.complete("k", "a", 100)
    later = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: later)

    again = claims.claim("other", "b", 10), claims.claim("k", "b", 10)

    assert [claim.state for claim in again] == ["claimed", "claimed"]


def test_a_released_key_is_free(claims: SQLiteIdempotencyStore) -> None:
    """C10: a run that failed gives its key back."""
    claims.claim("k", "a", 10)

    released = claims.release("k", "a")

    assert released
    assert claims.claim("k", "b", 10).state == "claimed"


def test_a_stranger_changes_nothing(claims: SQLiteIdempotencyStore) -> None:
    """C10: a claim is renewed, completed and released by its owner only."""
    claims.claim("k", "a", 10)

    changed = [
        claims.renew("k", "b", 10), claims.complete("k", "b", 10), claims.release("k", "b"),
        claims.renew("none", "b", 10), claims.release("none", "b"),
    ]  # fmt: skip

    assert changed == [False] * 5
    assert claims.renew("k", "a", 10)


def test_a_completed_key_is_not_released(claims: SQLiteIdempotencyStore) -> None:
    """What is done stays done, also for its owner."""
    claims.claim("k", "a", 10)
    claims.complete("k", "a", 100)

    changed = [claims.release("k", "a"), claims.renew("k", "a", 10), claims.complete("k", "a", 10)]

    assert changed == [False] * 3


def test_a_claim_that_is_renewed_stays(claims: SQLiteIdempotencyStore, clock: list[float]) -> None:
    """C10: however long the run takes, nobody else gets the key while its owner renews."""
    claims.claim("k", "a", 10)
    states = set()

    for _ in range(20):
        states.add(claims.claim("k", "b", 10).state)
        clock[0] += 9
        claims.renew("k", "a", 10)

    assert states == {"busy"}


def test_a_claim_that_nobody_renews_runs_out(
    claims: SQLiteIdempotencyStore, clock: list[float]
) -> None:
    """C10: the key of an owner that died is free after its ttl, and the dead one has lost it."""
    claims.claim("k", "a", 10)
    first = claims.claim("k", "b", 10)
    clock[0] += first.retry_after

    second = claims.claim("k", "b", 10)

    assert second.state == "claimed"
    assert not claims.renew("k", "a", 10)
    assert not claims.complete("k", "a", 10)


def test_a_claim_runs_out_for_processes_of_one_look(
    claims: SQLiteIdempotencyStore, clock: list[float], tmp_path: Path
) -> None:
    """C10: RQ runs each job in a process of its own, which has not seen the claim before."""
    claims.claim("k", "a", 10)
    states = []

    for seconds in (4, 4, 4):
        fresh = SQLiteIdempotencyStore(tmp_path / "claims.db")
        fresh._clock = lambda: clock[0]
        states.append(fresh.claim("k", "b", 10).state)
        fresh.close()
        clock[0] += seconds
    clock[0] -= 2

    assert states == ["busy"] * 3
    assert claims.claim("k", "b", 10).state == "claimed"


def test_a_machine_that_was_started_anew_begins_to_watch_anew(
    claims: SQLiteIdempotencyStore, clock: list[float]
) -> None:
    """Its clock begins at nought, so that what was noted before says nothing."""
    claims.claim("k", "a", 10)
    claims.claim("k", "b", 10)
    clock[0] = 5.0

    first = claims.claim("k", "b", 10)
    clock[0] += 10
    second = claims.claim("k", "b", 10)

    assert (first.state, first.retry_after) == ("busy", 10)
    assert second.state == "claimed"


def test_nothing_is_left_of_a_claim_that_was_watched(claims: SQLiteIdempotencyStore) -> None:
    """Neither of one that was given back, nor of one that is done."""
    for key in ("given back", "done"):
        claims.claim(key, "a", 10)
        claims.claim(key, "b", 10)
    claims.release("given back", "a")
    claims.complete("done", "a", 10)

    with claims._database.transaction(timeout=5) as connection:
        assert connection.execute("SELECT count(*) FROM watched").fetchone() == (0,)


def test_the_wall_clock_ends_no_claim(
    claims: SQLiteIdempotencyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is set forward gives nobody a key that is being used."""
    claims.claim("k", "a", 10)
    claims.claim("k", "b", 10)
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)

    again = claims.claim("k", "b", 10)

    assert again.state == "busy"


def test_claims_are_shared_with_other_processes(
    claims: SQLiteIdempotencyStore, in_child: Any
) -> None:
    """A claim made in a child process counts in its parent."""
    claims.claim("mine", "parent", 10)

    def work() -> None:
        assert claims.claim("mine", "child", 10).state == "busy"
        assert claims.claim("yours", "child", 10).state == "claimed"

    code = in_child(work)

    assert code == 0
    assert claims.claim("yours", "parent", 10).state == "busy"


def test_the_file_of_a_queue_serves(desk: Any) -> None:
    """Queue and claims may share one file, and one connection."""
    store = desk.open()
    store.put(desk.job(), timeout=1)
    claims = SQLiteIdempotencyStore(store.database)

    claim = claims.claim("k", "a", 10)

    assert claim.state == "claimed"
    assert store.counts().ready == 1
