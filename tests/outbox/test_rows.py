"""`OutboxRows`: what waits in a database, drained by one process at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dispatchers import DispatchRequest
from dispatchers._models.envelope import encode
from dispatchers.forwarding import Fate, Forwarder, HeldRow, Settled
from dispatchers.outbox import NewRow, OutboxRows, create_tables
from dispatchers.outbox import _rows as outbox_rows
from dispatchers.outbox._sqlalchemy import SQLAlchemyStore
from dispatchers.testing import RecordingDispatcher, processes

from .conftest import sqlalchemy_url


def new(number: int, lane: str = "", alias: str = "broker", **given: Any) -> NewRow:
    request = DispatchRequest(task="t", payload={"n": number}, id=f"r{number}", **given)
    return NewRow.of(request, encode(request), alias, lane)


@pytest.fixture
def store(place):
    store = place.store()
    yield store
    store.close()


@pytest.fixture
def rows(store) -> OutboxRows:
    return OutboxRows(store, "broker")


def taken(rows: OutboxRows, limit: int = 100, **but: Any) -> list[HeldRow]:
    return list(rows.take(limit, **{"but_lanes": (), "but_rows": (), **but}))


def lanes(found: list[HeldRow]) -> list[str]:
    return [row.lane for row in found]


# What is taken.


def test_rows_are_taken_in_order(rows):
    """F8: without those of lanes and rows that wait."""
    rows.put([new(1, "a"), new(2, "b"), new(3, "a"), new(4, "c")], timeout=5)
    found = taken(rows)
    first = found[0].seq

    assert lanes(found) == ["a", "b", "a", "c"]
    assert lanes(taken(rows, 2)) == ["a", "b"]
    assert lanes(taken(rows, but_lanes=["a"])) == ["b", "c"]
    assert lanes(taken(rows, but_rows=[first])) == ["b", "a", "c"]


def test_a_row_has_what_was_dispatched(rows):
    """The envelope to the byte, and what it does not carry."""
    row = new(1, "é", deduplicate=True)
    rows.put([row], timeout=5)
    (found,) = taken(rows)

    assert (found.body, found.lane, found.deduplicate) == (row.body, "é", True)


def test_an_id_that_waits_is_held_once(rows):
    """F7: whoever is in doubt dispatches again under the same id."""
    rows.put([new(1)], timeout=5)
    rows.put([new(1), new(2), new(2)], timeout=5)

    assert len(taken(rows)) == 2


def test_ids_are_compared_exactly(rows):
    """Two that differ in case are two."""
    rows.put([new(1)._replace(id="a"), new(1)._replace(id="A")], timeout=5)

    assert len(taken(rows)) == 2


def test_thousands_are_added_at_once(rows):
    """More than one statement takes."""
    rows.put([new(number) for number in range(2500)], timeout=20)

    assert [int(row.body.partition(b'"n":')[2].split(b"}")[0]) for row in taken(rows, 3000)] == [
        *range(2500)
    ]


def test_large_rows_are_read_one_by_one(rows, store, monkeypatch):
    """Hundreds of them together may be more than the memory of a relay."""
    monkeypatch.setattr(outbox_rows, "BYTES", 200_000)
    size = 100_000
    rows.put([new(number, headers={"x": "x" * size}) for number in range(5)], timeout=5)
    read: list[int] = []
    begin = store.transaction

    @contextmanager
    def counting(**given: Any) -> Iterator[Any]:
        with begin(**given) as executor:
            yield Counting(executor, read)

    monkeypatch.setattr(store, "transaction", counting)
    first = taken(rows)

    assert len(first) == 2
    assert sum(read) < 3 * size
    assert sum(len(row.body) for row in first) > 2 * size


class Counting(NamedTuple):
    """Runs statements, and notes the bytes that they read."""

    executor: Any
    read: list[int]

    def execute(self, sql: str, values: Any = ()) -> Any:
        result = self.executor.execute(sql, values)
        values_read = [each for row in result.rows for each in row]
        self.read.extend(len(each) for each in values_read if isinstance(each, bytes | memoryview))
        return result


def test_rows_of_others_are_left_alone(rows, store):
    """Each alias has its own order and its own leader."""
    other = OutboxRows(store, "other")
    rows.put([new(1, alias="other")], timeout=5)

    assert (rows.is_empty(), other.is_empty()) == (True, False)
    assert (taken(rows), len(taken(other))) == ([], 1)
    assert (rows.lead(), other.lead()) == (True, True)


def test_what_no_outbox_hands_over_becomes_a_dead_letter(rows, place):
    """O8: it is never stuck in silence; but not at once, as its process may be on its way."""
    rows.put([new(1, alias="gone"), new(2, alias="known"), new(3, alias="new")], timeout=5)
    place.query(f"UPDATE dispatchers_outbox SET created_at = {time.time() - 3600} WHERE id <> 'r3'")
    looking = OutboxRows(rows.store, "broker", known=lambda: ["known"])
    Forwarder(looking, RecordingDispatcher(alias="broker")).run(lambda: False, drain=True)

    ((id_, why),) = place.query("SELECT id, why FROM dispatchers_outbox WHERE dead")
    assert id_ == "r1"
    assert "hands over to 'gone'" in why


# What is settled.


def settled(row: HeldRow, fate: Fate, why: str = "") -> Settled:
    return Settled(row, fate, None, why)


def test_each_row_goes_where_it_belongs(rows, place):
    """F7: gone, kept with the reason, or dead with the body."""
    rows.put([new(1), new(2), new(3)], timeout=5)
    assert rows.lead()
    gone, stays, dead = taken(rows)
    rows.settle(
        [
            settled(gone, Fate.GONE),
            settled(stays, Fate.STAYS, "not now"),
            settled(dead, Fate.DEAD, "never"),
        ]
    )

    assert [row.seq for row in taken(rows)] == [stays.seq]
    assert place.query("SELECT tries, why FROM dispatchers_outbox WHERE id = 'r2'") == [
        (1, "not now")
    ]
    ((kept, why),) = place.query("SELECT body, why FROM dispatchers_outbox WHERE dead")
    assert bytes(kept) == dead.body
    assert "never" in why


def test_a_dead_letter_that_is_dispatched_again_waits_again(rows):
    """`dead replay` through the outbox itself: the id is known, and not to be lost."""
    rows.put([new(1)], timeout=5)
    assert rows.lead()
    (row,) = taken(rows)
    rows.settle([settled(row, Fate.DEAD, "never")])
    assert rows.is_empty()
    rows.put([new(1, "elsewhere")], timeout=5)

    assert lanes(taken(rows)) == ["elsewhere"]


def test_who_leads_no_more_settles_nothing(rows, place):
    """O7: what it did is done again, under the same ids."""
    rows.put([new(1)], timeout=5)
    assert rows.lead()
    (row,) = taken(rows)
    place.query("UPDATE dispatchers_outbox_leader SET owner = 'another', beat = 0")
    rows.settle([settled(row, Fate.GONE)])

    assert not rows.is_empty()
    assert not rows.lead()


# Who leads.


def test_one_drains_and_another_takes_over_when_it_leaves(rows, place):
    """O7: at once."""
    other = OutboxRows(place.store(), "broker")

    assert rows.lead()
    assert not other.lead()
    rows.leave()
    assert other.lead()
    assert not rows.lead()
    other.store.close()


def test_who_shows_no_sign_of_life_is_followed(place):
    """O7, O9: by beats that the other one sees, and by no clock."""
    gone, heir = (OutboxRows(place.store(), "broker", lease=1.0) for _ in range(2))
    clock = [0.0]
    heir._watch._clock = lambda: clock[0]
    assert gone.lead()
    assert not heir.lead()
    clock[0] = 0.9
    assert not heir.lead()
    gone._beaten = 0.001  # long ago
    assert gone.lead()
    clock[0] = 1.8  # the beat is new to it
    assert not heir.lead()
    clock[0] = 2.9

    assert heir.lead()
    gone._beaten = 0.001
    assert not gone.lead()
    for each in (gone, heir):
        each.store.close()


def test_of_many_that_would_lead_one_does(place):
    """O7: also where no row is there yet."""
    sources = [OutboxRows(place.store(), "broker") for _ in range(4)]
    led: list[bool] = []
    ready = threading.Barrier(4)

    def lead(source: OutboxRows) -> None:
        ready.wait(30)
        led.append(source.lead())

    threads = [threading.Thread(target=lead, args=(each,)) for each in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(led) == [False, False, False, True]
    for each in sources:
        each.store.close()


# The database.


def test_a_transaction_that_fails_leaves_nothing(rows, store):
    """And the next one is not in the way of what it left."""

    def fail() -> None:
        with store.transaction(timeout=5) as executor:
            executor.execute("INSERT INTO orders (number) VALUES (?)", [1])
            executor.execute("SELECT * FROM nowhere")

    with pytest.raises(Exception, match="nowhere"):
        fail()
    with store.transaction(timeout=5, write=False) as executor:
        assert not executor.execute("SELECT number FROM orders").rows


def test_a_database_that_comes_back_is_used_again(rows, store):
    """O6: a connection that is lost is made again."""
    rows.put([new(1)], timeout=5)
    if isinstance(store, SQLAlchemyStore):
        pytest.skip("its pool asks before it gives a connection")
    store._connection.close()
    with pytest.raises(Exception, match="closed"):
        rows.is_empty()

    assert not rows.is_empty()


def test_what_is_committed_is_told(rows, place):
    """F10: a relay in another process need not wait for its next look."""
    if place.dialect == "mysql":
        pytest.skip("MariaDB tells of nothing: it is looked every half second")
    told = threading.Event()
    rows.lead()
    with rows.watched(told.set):
        processes.wait_until(told.is_set, "nothing is told at first")
        told.clear()
        other = OutboxRows(place.store(), "broker")
        other.put([new(1)], timeout=5)
        other.store.close()

        assert told.wait(30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_uses_a_connection_of_its_own(rows, place):
    """The parent's goes on to work."""
    rows.put([new(1)], timeout=5)
    parents = getattr(rows.store, "_connection", None)
    if (child := os.fork()) == 0:
        done = 1
        try:
            rows.put([new(2)], timeout=5)
            done = int(parents is not None and rows.store._connection is parents)
        finally:
            os._exit(done)
    _, status = os.waitpid(child, 0)
    rows.put([new(3)], timeout=5)

    assert os.waitstatus_to_exitcode(status) == 0
    assert place.count() == 3


def test_a_forwarder_drains_it(rows, place):
    """All of it, in order."""
    rows.put([new(number, f"lane{number % 3}") for number in range(30)], timeout=5)
    broker = RecordingDispatcher(alias="broker")
    Forwarder(rows, broker).run(lambda: False, drain=True)

    assert sorted(each.id for each in broker.requests) == sorted(f"r{n}" for n in range(30))
    assert place.count() == 0
    assert place.query("SELECT * FROM dispatchers_outbox_leader") == []


def test_stats_count_what_waits_by_lane(rows, place):
    """With the age of the oldest."""
    rows.put([new(1, "a"), new(2, "a"), new(3, "b")], timeout=5)
    place.query(f"UPDATE dispatchers_outbox SET created_at = {time.time() - 100} WHERE id = 'r1'")
    found = rows.by_lane(timeout=5)

    assert {lane: count for lane, (count, _) in found.items()} == {"a": 2, "b": 1}
    assert 99 < found["a"][1] < 130


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux only")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("given", ["url", "engine"])
def test_no_file_of_sqlalchemy_is_open_in_a_child(sqlite_place, given):
    """C8: a child that inherits a file of SQLite loses what it commits."""
    sa = pytest.importorskip("sqlalchemy")
    url = sqlalchemy_url(sqlite_place)
    rows = OutboxRows(SQLAlchemyStore(url if given == "url" else sa.create_engine(url)), "broker")
    rows.put([new(1)], timeout=5)
    assert _open(sqlite_place)
    if (child := os.fork()) == 0:
        done = 1
        try:
            inherited = _open(sqlite_place)
            rows.put([new(2)], timeout=5)
            done = int(inherited)
        finally:
            os._exit(done)
    _, status = os.waitpid(child, 0)
    rows.put([new(3)], timeout=5)

    assert os.waitstatus_to_exitcode(status) == 0
    assert sqlite_place.count() == 3
    rows.store._engine.dispose()


def test_a_database_in_memory_survives_a_fork():
    """C8: its connection is the database."""
    sa = pytest.importorskip("sqlalchemy")
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    store = SQLAlchemyStore(engine)
    create_tables(engine)
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)

    assert OutboxRows(store, "broker").is_empty()
    engine.dispose()


def _open(place) -> bool:
    """Tell whether this process has the file open."""
    path = place.url.removeprefix("sqlite:")
    numbers = os.listdir("/proc/self/fd")  # noqa: PTH208 - names only
    links = (Path("/proc/self/fd", number) for number in numbers)
    return any(str(link.readlink()) == path for link in links if link.is_symlink())
