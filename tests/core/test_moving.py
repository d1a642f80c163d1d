"""`Move`: what is claimed is settled by the answer of the new backend (F1, F7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from dispatchers import DispatchRequest
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.moving import MOST_REFUSED, Claimed, Claims, Counts, ListClaims, Move, Window
from dispatchers.testing import RecordingDispatcher


@pytest.fixture
def old(tmp_path: Path) -> Iterator[SQLiteDispatcher]:
    dispatcher = SQLiteDispatcher(path=tmp_path / "old.db")
    yield dispatcher
    dispatcher.close()


def put(old: SQLiteDispatcher, count: int) -> list[str]:
    requests = [DispatchRequest(task="shop.note", payload={"n": n}) for n in range(count)]
    old.dispatch_many(requests).raise_for_error()
    return [each.id for each in requests]


def states(old: SQLiteDispatcher) -> tuple[int, int]:
    """Return how much waits, and how much is claimed."""
    (found,) = old.stats()
    return found.waiting or 0, found.running or 0


def moved(new: RecordingDispatcher) -> list[str]:
    return [each.request.id for each in new.dispatched]


def never() -> bool:
    return False


class Watched:
    """What a move tells, and what lies where meanwhile."""

    def __init__(self, old: SQLiteDispatcher, new: RecordingDispatcher, *, heals: int = 0) -> None:
        self.seen: list[tuple[int, int]] = []
        self._old, self._new, self._heals = old, new, heals

    def __call__(self, counts: Counts) -> None:
        del counts
        self.seen.append(states(self._old))
        if len(self.seen) == self._heals:
            self._new.up()

    def stops(self) -> bool:
        return bool(self.seen)


def test_a_broker_that_is_away_gets_it_later(old: SQLiteDispatcher) -> None:
    """What is rejected goes back to the old workers at once, and is tried again."""
    ids, new = put(old, 3), RecordingDispatcher()
    watched = Watched(old, new, heals=3)
    new.down()

    Move(old._moving(None), new, watched).run(never)

    assert watched.seen[:3] == [(3, 0)] * 3
    assert moved(new) == ids
    assert states(old) == (0, 0)


def test_after_unknown_only_the_new_backend_gets_it(old: SQLiteDispatcher) -> None:
    """F1: it stays claimed, and is handed over again under the same id until there is an answer."""
    ids, new = put(old, 3), RecordingDispatcher()
    watched = Watched(old, new, heals=3)
    new.down(status="unknown")

    move = Move(old._moving(None), new, watched)
    move.run(never)

    assert watched.seen[:3] == [(0, 3)] * 3
    assert moved(new) == ids
    assert (move.counts.moved, move.counts.in_doubt) == (3, 0)


def test_what_is_in_doubt_at_the_end_goes_back_and_is_counted(old: SQLiteDispatcher) -> None:
    """It may run twice then, under the same id, which is better than not at all."""
    put(old, 3)
    new = RecordingDispatcher()
    watched = Watched(old, new)
    new.down(status="unknown")

    move = Move(old._moving(None), new, watched)
    move.run(watched.stops)

    assert (move.counts.moved, move.counts.in_doubt) == (0, 3)
    assert states(old) == (3, 0)


@pytest.mark.dispatchers_unchecked
@pytest.mark.parametrize("category", ["unsupported", "not_found", "permission", "too_large"])
def test_what_is_refused_for_good_goes_back_at_the_end(
    old: SQLiteDispatcher, category: str
) -> None:
    """C6: it is not tried again, does not hold up the rest, and the reason is counted."""
    ids, new = put(old, 3), RecordingDispatcher()
    watched = Watched(old, new)
    new.fail_when(lambda request: request.id == ids[1], category=category)

    move = Move(old._moving(None), new, watched)
    move.run(never)

    assert watched.seen == [(0, 1)]
    assert states(old) == (1, 0)
    assert moved(new) == [ids[0], ids[2]]
    ((why, count),) = move.counts.refused.items()
    assert (count, why.partition(":")[0]) == (1, f"rejected ({category})")


@pytest.mark.dispatchers_unchecked
def test_a_move_that_is_refused_everything_ends(old: SQLiteDispatcher) -> None:
    """What is refused is kept from the old workers meanwhile: there is an end to that."""
    put(old, MOST_REFUSED + 300)
    new = RecordingDispatcher()
    new.down(category="not_found")

    move = Move(old._moving(None), new)
    move.run(never)

    assert move.is_full
    assert move.counts.refused.total() == MOST_REFUSED
    assert states(old) == (MOST_REFUSED + 300, 0)


class Failing(Claims):
    """The claims of a file that cannot be settled for a while."""

    def __init__(self, inner: Claims) -> None:
        self.inner, self.fails = inner, 2
        self.lease = inner.lease

    @property
    def store(self) -> str:
        return self.inner.store

    def renew(self) -> bool:
        return self.inner.renew()

    def claim(self, limit: int) -> Sequence[Claimed]:
        return self.inner.claim(limit)

    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("no answer")
        self.inner.settle(gone, back)

    def recover(self, known: Sequence[Claimed]) -> None:
        self.inner.recover(known)

    def close(self) -> None:
        self.inner.close()


def test_what_could_not_be_settled_is_not_handed_over_again(old: SQLiteDispatcher) -> None:
    """The new backend has it: only the settling is repeated."""
    ids, new = put(old, 3), RecordingDispatcher()

    move = Move(Failing(old._moving(None)), new)
    move.run(never)

    assert moved(new) == ids
    assert (move.counts.moved, states(old)) == (3, (0, 0))


class Losing(Failing):
    """The claims of a file whose answer to a claim is lost once."""

    def claim(self, limit: int) -> Sequence[Claimed]:
        found = self.inner.claim(limit)
        if self.fails:
            self.fails = 0
            raise OSError("no answer")
        return found


def test_what_was_claimed_without_an_answer_is_moved_too(old: SQLiteDispatcher) -> None:
    """It is given back and claimed again by the same run, whose lease would keep it for ever."""
    ids, new = put(old, 3), RecordingDispatcher()

    Move(Losing(old._moving(None)), new).run(never)

    assert moved(new) == ids
    assert states(old) == (0, 0)


def test_a_lost_lease_costs_nothing_but_a_repeat(old: SQLiteDispatcher) -> None:
    """What went back by itself is claimed anew, under the same ids."""
    ids, new = put(old, 3), RecordingDispatcher()
    claims = old._moving(None)
    new.down(status="unknown")
    lost: list[int] = []

    def told(counts: Counts) -> None:
        del counts
        if not lost:
            # As another process does whose clock has seen no heartbeat for the lease.
            owners = old._store.owners
            lost.append(owners.leave(claims._owner, timeout=5))  # type: ignore[attr-defined]
            new.up()

    Move(claims, new, told).run(never)

    assert lost == [3]
    assert moved(new) == ids
    assert states(old) == (0, 0)


def test_scheduled_work_is_claimed_once(old: SQLiteDispatcher) -> None:
    """What is claimed, by whomever, is passed by."""
    for _ in range(3):
        assert old.dispatch(DispatchRequest(task="t", delay=timedelta(hours=1))).ok
    mine, other = old._moving(None), old._moving(None)
    mine.renew()
    other.renew()

    found = [mine.claim(2), other.claim(2), mine.claim(2)]

    assert [len(each) for each in found] == [2, 1, 0]


class Letters(ListClaims[str]):
    """Claims on lists of text, where capitals are ours."""

    def __init__(self, **lists: str) -> None:
        super().__init__()
        self.kept = {name: list(text) for name, text in lists.items()}

    @property
    def store(self) -> str:
        return "letters"

    def lists(self) -> Sequence[str]:
        return list(self.kept)

    def window(self, part: str, start: int, limit: int) -> Window:
        found = self.kept[part][start : start + limit]
        ours = [each for each in found if each.isupper()]
        for each in ours:
            self.kept[part].remove(each)
        claimed = [Claimed(each, each.encode()) for each in ours]
        return Window(claimed, len(found) - len(ours), len(found) < limit)

    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        pass

    def recover(self, known: Sequence[Claimed]) -> None:
        pass


def drained(claims: Letters, limit: int) -> str:
    found = ""
    while some := claims.claim(limit):
        found += "".join(each.handle for each in some)
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_lists_are_looked_through_past_what_is_foreign(limit: int) -> None:
    """Each list in its order; what is not ours is never claimed, and counted once."""
    claims = Letters(a="xxxAxBCxxxxxD", b="", c="xEF")

    assert drained(claims, limit) == "ABCDEF"
    assert claims.foreign == 10
    assert "".join(claims.kept["a"]) == "x" * 9


def test_lists_that_workers_shorten_are_looked_through_again() -> None:
    """What was passed by may have gone: then ours stand where foreign elements stood."""
    claims = Letters(a="xxxxxA")
    assert drained(claims, 2) == "A"

    claims.kept["a"] = list("Bx")

    assert drained(claims, 2) == "B"
    assert claims.foreign == 1
