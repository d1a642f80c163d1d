"""Leases: who renews keeps what it holds, who does not loses it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dispatchers._runtime.lease import Watch
from dispatchers.sqlite import Finish, SQLiteStore


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(store: SQLiteStore) -> Clock:
    clock = Clock()
    store.owners._watch = Watch(clock)
    return clock


def test_a_lease_runs_out_when_nothing_was_seen_for_its_length() -> None:
    """A lease lasts for its length after the last renewal that this observer saw."""
    clock = Clock()
    watch = Watch(clock)

    first = watch.left("a", 1, 10.0)
    clock.now += 9
    second = watch.left("a", 1, 10.0)
    clock.now += 2
    third = watch.left("a", 1, 10.0)
    renewed = watch.left("a", 2, 10.0)

    assert (first, second, third, renewed) == (10.0, 1.0, -1.0, 10.0)


def test_a_lease_never_lasts_longer_than_it_is() -> None:
    """However its length and the time are rounded."""
    clock = Clock()
    watch = Watch(clock)
    left = []

    for number in range(1000):
        clock.now = number / 7
        left.append(watch.left("a", number, 60.3))

    assert set(left) == {60.3}


def test_watching_does_not_grow_without_bound() -> None:
    """What an observer remembers is bounded; the longest unseen goes first."""
    clock = Clock()
    watch = Watch(clock)
    watch.left("first", 1, 10.0)
    clock.now += 700  # without a look

    for number in range(10_000):
        watch.left(f"n{number}", 1, 10.0)
    clock.now += 11

    assert watch.left("first", 1, 10.0) == 10.0
    assert watch.left("n9999", 1, 10.0) < 0


def test_any_number_of_leases_is_watched() -> None:
    """C10: with more leases than are remembered for long, each of them still runs out."""
    clock = Clock()
    watch = Watch(clock)

    for _ in range(3):
        left = [watch.left(f"n{number}", 1, 10.0) for number in range(10_100)]
        clock.now += 5.1

    assert max(left) < 0


def test_ten_thousand_lost_owners_do_not_hold_up_a_heartbeat(
    desk: Any, store: SQLiteStore, owner: str, clock: Clock
) -> None:
    """C9: what many owners held goes back in few transactions, each claim counted once."""
    store.put_many([desk.job() for _ in range(10_000)], timeout=20)
    taken = store.exchange([], owner=owner, queues=None, limit=10_000, timeout=20).jobs
    transactions = []
    with store.database.transaction(timeout=5) as connection:
        connection.execute("UPDATE running SET owner = 'gone-' || seq")
        connection.execute("INSERT INTO owners SELECT owner, 0, 1, 0 FROM running")
        connection.set_trace_callback(transactions.append)
    store.owners.reap(timeout=20)
    clock.now += 2

    reaped = store.owners.reap(timeout=20)

    assert (len(taken), reaped) == (10_000, 10_000)
    assert sum(each.startswith("BEGIN") for each in transactions) <= 30
    assert {job.deliveries for job in _take(store, owner)} == {2}


def test_an_owner_that_beats_keeps_its_jobs(
    desk: Any, store: SQLiteStore, owner: str, clock: Clock
) -> None:
    """C9: no second run starts while the owner renews, however long the run takes."""
    store.put(desk.job(), timeout=1)
    [job] = _take(store, owner)

    for _ in range(20):
        store.owners.reap(timeout=1)
        clock.now += store.lease * 0.9
        assert store.owners.beat(owner, timeout=1)
    reaped = store.owners.reap(timeout=1)

    assert reaped == 0
    assert (
        store.exchange([Finish.done(job)], owner=owner, queues=None, limit=0, timeout=1).lost == []
    )


def test_an_owner_that_is_silent_for_its_lease_loses_its_jobs(
    desk: Any, store: SQLiteStore, owner: str, clock: Clock
) -> None:
    """C9: the jobs of an owner that died go back to the queue, counted as delivered."""
    store.put_many([desk.job("a"), desk.job("b")], timeout=1)
    _take(store, owner)
    store.owners.reap(timeout=1)
    clock.now += store.lease

    reaped = store.owners.reap(timeout=1)
    other = store.owners.register(timeout=1)
    again = _take(store, other)

    assert reaped == 2
    assert [(job.id, job.deliveries) for job in again] == [("a", 2), ("b", 2)]


def test_a_new_observer_waits_for_a_whole_lease(
    desk: Any, store: SQLiteStore, owner: str, clock: Clock
) -> None:
    """An observer judges only by what it saw itself: the first look takes nothing away."""
    store.put(desk.job(), timeout=1)
    _take(store, owner)
    clock.now += 1000 * store.lease

    first = store.owners.reap(timeout=1)
    clock.now += store.lease / 2
    second = store.owners.reap(timeout=1)

    assert (first, second) == (0, 0)
    assert store.counts().running == 1


def test_the_wall_clock_takes_no_part(
    desk: Any, store: SQLiteStore, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is set forward or back takes no job from its owner."""
    store.put(desk.job(), timeout=1)
    _take(store, owner)
    store.owners.reap(timeout=1)

    for step in (1e6, -1e6):
        there = time.time() + step
        monkeypatch.setattr(time, "time", lambda there=there: there)
        assert store.owners.reap(timeout=1) == 0

    assert store.counts().running == 1


def test_a_beat_between_the_look_and_the_taking_saves_the_lease(
    desk: Any, store: SQLiteStore, owner: str
) -> None:
    """Taking back is fenced by the beat that was seen: who beat since is alive."""
    store.put(desk.job(), timeout=1)
    _take(store, owner)
    store.owners.beat(owner, timeout=1)

    taken = store.owners._take_back([(owner, 0)], 1)

    assert taken == 0
    assert store.counts().running == 1


def test_an_owner_that_comes_back_learns_that_it_lost(
    desk: Any, store: SQLiteStore, owner: str, clock: Clock
) -> None:
    """C9: a lost lease is told at the next beat, and results that come late are refused."""
    store.put(desk.job(), timeout=1)
    [job] = _take(store, owner)
    store.owners.reap(timeout=1)
    clock.now += store.lease
    store.owners.reap(timeout=1)

    alive = store.owners.beat(owner, timeout=1)
    exchange = store.exchange([Finish.done(job)], owner=owner, queues=None, limit=1, timeout=1)

    assert not alive
    assert not exchange.alive
    assert exchange.lost == [Finish.done(job)]
    assert store.counts().ready == 1


def test_an_owner_that_leaves_gives_back_at_once(desk: Any, store: SQLiteStore, owner: str) -> None:
    """A worker that stops returns what it holds, and that counts as no delivery."""
    store.put(desk.job(), timeout=1)
    _take(store, owner)

    returned = store.owners.leave(owner, timeout=1)
    other = store.owners.register(timeout=1)
    [again] = _take(store, other)

    assert returned == 1
    assert again.deliveries == 1


def test_each_owner_is_judged_by_its_own_lease(desk: Any, clock: Clock, store: SQLiteStore) -> None:
    """The length of a lease is its owner's, not the observer's."""
    short = desk.open(lease=1.0)
    owner = short.owners.register(timeout=1)
    store.owners.reap(timeout=1)
    clock.now += 1.5

    store.owners.reap(timeout=1)

    assert not short.owners.beat(owner, timeout=1)


def test_two_observers_take_back_once(desk: Any, store: SQLiteStore, owner: str) -> None:
    """Whoever sees it first takes the jobs of a dead owner back; nobody does it twice."""
    store.put_many([desk.job() for _ in range(5)], timeout=1)
    _take(store, owner)
    reaped: list[int] = []

    def look() -> None:
        reaped.append(store.owners._take_back([(owner, 0)], 5))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(reaped) == [0, 0, 0, 5]


def _take(store: SQLiteStore, owner: str) -> list[Any]:
    return store.exchange([], owner=owner, queues=["default"], limit=10, timeout=5).jobs
