"""`stats()`: figures by queue, exact where the backend can tell, never an exception."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DeadLetter,
    Sent,
    Stats,
    Task,
    queue_stats,
    register,
    task,
)
from dispatchers._models.stats import tallied
from dispatchers._runtime.clock import now
from dispatchers.backends import _figures_behind
from dispatchers.backends.asyncio import AsyncioDispatcher
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.null import NullDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.backends.thread import ThreadDispatcher
from dispatchers.sqlite import Finish, NewJob, SQLiteDeadLetters, SQLiteStore, _counts
from dispatchers.sqlite._held import NewRow
from dispatchers.stores import MemoryDeadLetters, count_dead, dead_letters

HOUR = timedelta(hours=1)


@pytest.fixture
def job() -> Task[[], None]:
    @task(name="stats.job")
    def job() -> None: ...

    return job


@pytest.fixture
def hanging() -> Iterator[Callable[[], BaseDispatcher]]:
    """A backend that answers no question until the test is over."""
    over = threading.Event()

    class Hanging(NullDispatcher):
        name = "hanging"
        capabilities = Capabilities(stats=True)

        def _stats(self, *, timeout: float) -> Sequence[Stats]:
            over.wait(30)
            return []

    yield Hanging
    over.set()


def numbers(found: Sequence[Stats]) -> dict[str, tuple[int | None, ...]]:
    return {each.queue: (each.waiting, each.running, each.delayed, each.dead) for each in found}


def test_memory_is_exact(job: Task[[], None]) -> None:
    """`memory` counts what waits, runs, is delayed and dead, and since when the oldest waits."""
    queue = MemoryDispatcher(queue="mail")
    for name in ("mail", "low", "low"):
        job.options(dispatcher=queue, queue=name).dispatch()
    job.options(dispatcher=queue, delay=HOUR).dispatch()
    queue.claim(["mail"])
    queue.advance(timedelta(minutes=10))

    found = queue.stats()

    assert numbers(found) == {"low": (2, 0, 0, 0), "mail": (0, 1, 1, 0)}
    assert 600 <= (found[0].oldest or 0) < 610
    assert found[1].oldest == 0.0
    assert found[0].at.tzinfo is UTC


def test_delayed_work_waits_once_it_is_due(job: Task[[], None]) -> None:
    """Work whose time has come counts as waiting, from that time on."""
    queue = MemoryDispatcher()
    job.options(dispatcher=queue, delay=HOUR).dispatch()
    queue.advance(HOUR + timedelta(minutes=1))

    (only,) = queue.stats()

    assert (only.waiting, only.delayed) == (1, 0)
    assert 60 <= (only.oldest or 0) < 70


def test_dead_letters_are_counted_by_queue(job: Task[[], None]) -> None:
    """Dead letters count for the queue they came from, also in a configured store."""
    store = MemoryDeadLetters()
    for number, name in enumerate(("mail", "mail", "low")):
        store.add(DeadLetter(id=str(number), task="t", queue=name, reason="permanent", body=b""))

    assert count_dead(store) == {"mail": 2, "low": 1}
    assert count_dead(None) is None
    assert count_dead(object()) is None  # type: ignore[arg-type] # a store that cannot count


def test_thread_counts_what_its_threads_have() -> None:
    """`thread` counts what waits for a thread, and what runs on one."""
    started, release = threading.Event(), threading.Event()

    @task(name="stats.slow")
    def slow() -> None:
        started.set()
        release.wait(30)

    dispatcher = ThreadDispatcher(workers=1)
    one = slow.options(dispatcher=dispatcher)
    one.dispatch()
    started.wait(30)
    one.dispatch()
    slow.options(dispatcher=dispatcher, delay=HOUR).dispatch()

    found = dispatcher.stats()
    release.set()
    dispatcher.close(0.0)

    assert numbers(found) == {"default": (1, 1, 1, None)}


def test_asyncio_counts_timers_as_delayed(job: Task[[], None]) -> None:
    """`asyncio` starts what is due at once, so that only delayed work waits."""
    dispatcher = AsyncioDispatcher()

    async def looked() -> list[Stats]:
        job.options(dispatcher=dispatcher, delay=HOUR).dispatch()
        job.options(dispatcher=dispatcher).dispatch()
        found = dispatcher.stats()
        dispatcher.close(0.0)
        return found

    found = asyncio.run(looked())

    assert numbers(found) == {"default": (0, 1, 1, None)}


def test_sqlite_is_exact(job: Task[[], None], tmp_path: Path) -> None:
    """`sqlite` counts by queue: waiting, running, delayed and dead, and the oldest age."""
    dispatcher = SQLiteDispatcher(path=str(tmp_path / "q"), queues=["default", "mail", "idle"])
    store = SQLiteStore(tmp_path / "q")
    for name in ("mail", "mail", "mail", "default"):
        job.options(dispatcher=dispatcher, queue=name).dispatch()
    job.options(dispatcher=dispatcher, delay=HOUR).dispatch()
    job.options(dispatcher=dispatcher, eta=datetime.now(UTC) - HOUR).dispatch()
    owner = store.owners.register(timeout=5)
    claimed = store.exchange([], owner=owner, queues=["mail"], limit=2, timeout=5)
    dead = [Finish.dead(claimed.jobs[0], reason="permanent")]
    store.exchange(dead, owner=owner, queues=None, limit=0, timeout=5)

    found = dispatcher.stats()

    assert numbers(found) == {
        "default": (2, 0, 1, 0),
        "idle": (0, 0, 0, 0),
        "mail": (1, 1, 0, 1),
    }
    assert 3600 <= (found[0].oldest or 0) < 3700
    assert found[1].oldest == 0.0


def test_sqlite_counts_from_indexes_alone(tmp_path: Path) -> None:
    """No statement behind `stats()` of `sqlite` reads the jobs themselves but those that run."""
    store = SQLiteStore(tmp_path / "q")
    store.open(timeout=5)
    with sqlite3.connect(tmp_path / "q") as connection:
        plans = [
            detail
            for sql in (_counts._WAITING, _counts._DELAYED, _counts._DEAD)
            for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {sql}", {"now": 0.0})
        ]
    connection.close()

    reads = [each for each in plans if " jobs" in each]
    assert len(reads) == 3
    assert all("COVERING INDEX" in each for each in reads), reads


def test_sqlite_tells_ten_thousand_queues(tmp_path: Path) -> None:
    """No page or limit decides what `stats()` of `sqlite` tells: 10,000 queues are 10,000 rows."""
    path = tmp_path / "q"
    store = SQLiteStore(path, synchronous="normal")
    jobs = [NewJob(f"id-{number}", "t", f"queue-{number}", b"") for number in range(10_000)]
    store.put_many(jobs, timeout=30)

    found = SQLiteDispatcher(path=str(path)).stats(timeout=30)

    assert len(found) == 10_001
    assert sum(each.waiting or 0 for each in found) == 10_000


def test_sqlite_counts_the_dead_of_a_configured_store(tmp_path: Path) -> None:
    """Where dead letters are kept elsewhere, they are counted there."""
    other = tmp_path / "dead"
    letter = DeadLetter(id="1", task="t", queue="mail", reason="permanent", body=b"")
    SQLiteDeadLetters(other).add(letter)
    dispatcher = SQLiteDispatcher(path=str(tmp_path / "q"), dead_letters=f"sqlite:{other}")

    assert numbers(dispatcher.stats())["mail"] == (0, 0, 0, 1)


def test_a_backend_that_cannot_say_has_no_figures() -> None:
    """A backend without the capability answers an empty list, silently."""
    assert InlineDispatcher().stats() == []
    assert not InlineDispatcher.capabilities.stats


def test_stats_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A backend that cannot be asked is an empty list and one warning, not an exception."""

    class Broken(NullDispatcher):
        capabilities = Capabilities(stats=True)

        def _stats(self, *, timeout: float) -> Sequence[Stats]:
            raise ConnectionRefusedError("no server there")

    assert Broken(alias="shop").stats() == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'shop'" in record.getMessage()
    assert "no server there" in record.getMessage()


def test_stats_never_hangs(
    hanging: Callable[[], BaseDispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that does not answer within the timeout is an empty list and one warning."""
    assert hanging().stats(timeout=0.05) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_is_not_known_is_none() -> None:
    """`queue_stats` tells zero apart from what a backend cannot say."""
    (only,) = queue_stats(waiting={"mail": 3}, dead={})

    assert only[:6] == ("mail", 3, None, None, 0, None)


def test_a_tally_keeps_the_oldest() -> None:
    """The oldest age is that of the work that has been due longest."""
    (only,) = tallied([("a", 5.0), ("a", 2.0), ("a", 99.0)], [], now=10.0, dead=None)

    assert only[:6] == ("a", 2, 0, 1, None, 8.0)


def test_stats_without_timeout_is_refused_at_registration() -> None:
    """An adapter whose `_stats` takes no timeout is refused when it is registered."""

    class Careless(BaseDispatcher):
        name = "careless"
        contract = 1
        capabilities = Capabilities(stats=True)

        def _send(self, request: object, body: bytes, *, timeout: float) -> Sent:
            return Sent()

        def _category(self, exc: Exception) -> None: ...

        def _maybe_sent(self, exc: Exception) -> bool:
            return False

        def _stats(self) -> Sequence[Stats]:  # type: ignore[override]
            return []

    with pytest.raises(ConfigurationError, match="`_stats` must take the keyword `timeout`"):
        register(Careless)


def counting(alias: str, *figures: Stats, **options: object) -> BaseDispatcher:
    """A dispatcher that counts what it is told to."""

    class Counting(NullDispatcher):
        name = "counting"
        capabilities = Capabilities(stats=True)

        def _stats(self, *, timeout: float) -> Sequence[Stats]:
            return figures

    return Counting(alias=alias, **options)


def figures(queue: str, *numbers: float | None) -> Stats:
    return Stats(queue, *numbers, at=now())  # type: ignore[arg-type]


def test_failover_adds_up_what_its_members_count() -> None:
    """By queue: numbers that a member knows, None where none does, and the largest age."""
    one = counting(
        "one", figures("low", 1, 0, None, 1, 2.0), figures("mail", 1, None, None, 2, 3.0)
    )
    other = counting("other", figures("mail", 2, 4, None, None, 9.0))

    made = FailoverDispatcher(to=[one, other])

    assert made.capabilities.stats
    assert [each[:6] for each in made.stats()] == [
        ("low", 1, 0, None, 1, 2.0),
        ("mail", 3, 4, None, 2, 9.0),
    ]


def test_members_that_share_a_store_count_its_dead_letters_once(tmp_path: Path) -> None:
    """Each of them counts all that are in it, and so does a `spill` with the same one."""
    store = f"sqlite:{tmp_path / 'dead.db'}"
    dead_letters(store).add(DeadLetter(id="a", task="t", queue="q", reason="failed", body=b"{}"))
    members = [
        SQLiteDispatcher(alias=name, path=str(tmp_path / name), dead_letters=store)
        for name in ("one", "other")
    ]
    made = FailoverDispatcher(to=members)
    held = SpillDispatcher(to=made, path=str(tmp_path / "spill.db"), dead_letters=store)

    found = [{each.queue: each.dead for each in some.stats()} for some in (made, held)]

    assert [each["q"] for each in found] == [1, 1]
    for each in (held, *members):
        each.close()


def test_failover_without_members_that_count_has_no_figures() -> None:
    """The capability is that of any member."""
    made = FailoverDispatcher(to=[NullDispatcher(alias="one"), NullDispatcher(alias="other")])

    assert not made.capabilities.stats
    assert made.stats() == []


def test_a_member_that_hangs_hides_no_other(
    hanging: Callable[..., BaseDispatcher],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is known is told, and the log has the rest; so in what stands on such a failover."""
    # Two seconds of a hundred, so that a slow machine does not cut off the sum as well.
    monkeypatch.setattr(_figures_behind, "SHARE", 0.04)
    well = counting("well", figures("mail", 2, 0, 0, 0, 1.0))
    made = FailoverDispatcher(to=[hanging(alias="hanging"), well], alias="both")

    found = made.stats(timeout=100.0)

    assert [each.waiting for each in found] == [2]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'both' (failover)" in record.getMessage()
    assert "'hanging' (hanging): " in record.getMessage()


def test_what_hangs_behind_a_spill_hides_not_what_it_holds(
    hanging: Callable[..., BaseDispatcher],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file's own figures are told while the broker answers nothing."""
    monkeypatch.setattr(_figures_behind, "SHARE", 0.001)
    made = SpillDispatcher(to=hanging(alias="broker"), path=str(tmp_path / "spill.db"))
    made.held.put([NewRow("a", "t", "mail", b"{}", False)], timeout=5.0)

    found = made.stats(timeout=100.0)

    assert [(each.queue, each.waiting) for each in found] == [("mail", 1)]
    assert "'broker' (hanging): " in caplog.text
    made.close()
