"""O1 to O9: what is committed arrives, whoever dies in between."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from dispatchers_rq import RQDispatcher

from dispatchers import (
    ConfigurationError,
    DeadLetter,
    DispatchRequest,
    get_dispatcher,
    override,
)
from dispatchers._models.envelope import decode
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.forwarding import Step
from dispatchers.outbox import Outbox
from dispatchers.testing import FaultProxy, RecordingDispatcher, processes
from dispatchers.testing.servers import MissingServerError, redis_url

from .conftest import Place, configured, note, sqlalchemy_url

SCRIPT = """
import os, signal, sys
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from dispatchers import DispatchRequest, get_dispatcher, override
from dispatchers.outbox import Outbox, OutboxRows

store, engine, redis, queue, what = sys.argv[1:]

def die(*args, **given):
    os.kill(os.getpid(), signal.SIGKILL)

def produce(n, committing=True):
    with Session(create_engine(engine)) as session, session.begin():
        session.execute(text("INSERT INTO orders VALUES (1)"))
        request = DispatchRequest(task="t", payload={"n": n}, id=f"r{n}")
        assert Outbox(session).dispatch(request).status == "deferred"
        if not committing:
            die()

with override(
    default={"backend": "outbox", "to": "broker", "store": store, "lease": 1.0},
    broker={"backend": "rq", "url": redis, "queue": queue},
):
    forwarder = get_dispatcher().forwarder
    if what == "before commit":
        produce(1, committing=False)
    if what == "after commit":
        forwarder.notice = die
        produce(1)
    if what == "before deletion":
        OutboxRows.settle = die
    forwarder.run(lambda: False, drain=True)
"""


class Broker:
    """A queue of rq of the test's own."""

    def __init__(self, url: str) -> None:
        self.url, self.name = url, f"outbox-{uuid.uuid4().hex}"
        self.client = redis.Redis.from_url(url)

    def ids(self) -> list[str]:
        """Return the ids of the jobs that wait, the oldest first."""
        found: Any = self.client.lrange(f"rq:queue:{self.name}", 0, -1)
        return [each.decode() for each in found]


@pytest.fixture
def queue() -> Iterator[Broker]:
    try:
        broker = Broker(redis_url())
    except MissingServerError as exc:
        pytest.skip(f"needs Redis: {exc}")
    yield broker
    keys = [f"rq:queue:{broker.name}", *(f"rq:job:{each}" for each in broker.ids())]
    broker.client.delete(*keys)
    broker.client.srem("rq:queues", f"rq:queue:{broker.name}")
    broker.client.close()


@pytest.fixture
def run(place: Place, queue: Broker, tmp_path: Path) -> Callable[[str], int]:
    """Run the script in a process of its own; return how it ended."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(what: str) -> int:
        engine = sqlalchemy_url(place)
        words = [sys.executable, str(script), place.url, engine, queue.url, queue.name, what]
        return subprocess.run(words, timeout=60, check=False).returncode

    return run


def test_killed_before_the_commit_there_is_no_work(run, place, queue):
    """O1: nor the data."""
    assert run("before commit") == -signal.SIGKILL
    assert run("drain") == 0

    assert queue.ids() == []
    assert place.count() == 0
    assert not place.query("SELECT number FROM orders")


def test_killed_after_the_commit_a_relay_hands_over(run, place, queue):
    """O2: the work arrives once."""
    assert run("after commit") == -signal.SIGKILL
    assert place.count() == 1
    assert run("drain") == 0

    assert len(queue.ids()) == 1
    assert place.count() == 0


def test_killed_before_the_deletion_a_relay_repeats(run, place, queue):
    """O3: under the same id, which the broker recognises."""
    assert run("after commit") == -signal.SIGKILL
    assert run("before deletion") == -signal.SIGKILL
    first = queue.ids()
    assert (len(first), place.count()) == (1, 1)
    assert run("drain") == 0

    assert queue.ids() == first
    assert place.count() == 0


def test_while_the_broker_is_away_rows_wait(place, broker):
    """O4: and leave in order when it is back."""
    with configured(place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        responses = get_dispatcher().dispatch_many([note.request(n=n) for n in range(300)])
        assert {each.status for each in responses} == {"deferred"}
        with broker.down():
            for _ in range(3):
                outbox.forwarder.step()
            assert outbox.forwarder.is_pausing
        assert place.count() == 300
        outbox.forwarder._backoffs.clear()
        outbox.forwarder.run(lambda: False, drain=True)

    assert [each.payload["n"] for each in broker.requests] == list(range(300))


def test_a_database_that_is_gone_for_a_while_is_survived(postgres_place, broker):
    """O6: the relay goes on when it is back."""
    with configured(postgres_place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        assert note.dispatch(n=1).ok
        pid = outbox.store._connection.info.backend_pid
        postgres_place.query(f"SELECT pg_terminate_backend({pid})")
        del outbox.forwarder.start
        outbox.forwarder.notice()
        processes.wait_until(lambda: broker.requests, "it does not go on")
        outbox.forwarder.stop(10)

    assert len(broker.requests) == 1


def test_a_database_that_is_down_is_told(postgres_place, broker):
    """O6: `rejected`, `unavailable`, and nothing hangs."""
    url = "postgresql://postgres@127.0.0.1:1/nowhere"
    with configured(postgres_place, broker, store=url):
        response = note.dispatch(n=1)

    assert (response.status, response.error.category) == ("rejected", "unavailable")


@pytest.mark.dispatchers_unchecked  # the letter tells
def test_poison_becomes_a_dead_letter_that_can_be_replayed(place, broker):
    """O8: with its body; its lane goes on."""
    with configured(place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        broker.fail_next(category="too_large")
        for n in (1, 2):
            assert note.dispatch(n=n).ok
        outbox.forwarder.run(lambda: False, drain=True)
        letters = outbox._dead_letters()
        (letter,) = letters.list()
        assert ([each.payload["n"] for each in broker.requests][-1], letter.task) == (2, note.name)
        assert "too_large" in letter.error.message
        assert letters.get(letter.id) == letter
        assert letters.get("other") is None
        assert letters.counts() == {"": 1}
        assert [(each.queue, each.waiting, each.dead) for each in outbox.stats()] == [("", 0, 1)]
        assert (letters.list(task="x"), letters.list(queue="x")) == ([], [])

        assert letters.edit(letter.id, letter.body.replace(b'"n":1', b'"n":3'))
        assert outbox.dispatch(decode(letters.get(letter.id).body)).ok
        assert not letters.delete(letter.id)
        outbox.forwarder.run(lambda: False, drain=True)

    assert [each.payload["n"] for each in broker.requests][-1] == 3
    assert place.count() == 0


def test_a_letter_may_be_added(place, broker):
    """By a worker, or by a test; an id that exists is replaced."""
    with configured(place, broker) as outbox:
        letters = outbox._dead_letters()
        for attempts in (1, 2):
            letters.add(
                DeadLetter(
                    id="a", task="t", queue="q", reason="permanent", attempts=attempts, body=b"x"
                )
            )
        (letter,) = letters.list()
        assert (letter.attempts, letter.body, letter.queue) == (2, b"x", "q")
        assert letters.delete("a")
        assert not letters.delete("a")
        assert outbox.rows.is_empty()


@pytest.mark.dispatchers_unchecked
def test_dead_letters_may_be_kept_elsewhere(place, broker, tmp_path):
    """O8: where the option `dead_letters` says."""
    elsewhere = f"sqlite:{tmp_path / 'letters.db'}"
    with configured(place, broker, dead_letters=elsewhere) as outbox:
        outbox.forwarder.start = lambda: None
        broker.fail_next(category="invalid")
        assert note.dispatch(n=1).ok
        outbox.forwarder.run(lambda: False, drain=True)

        assert len(outbox._dead_letters().list()) == 1
    assert place.count() == 0


# The backend by itself.


def test_what_waits_is_counted_and_warned_of(place, broker):
    """`stats` and `doctor --contact`."""
    with configured(place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        assert note.options(queue="mail").dispatch(n=1).durable
        assert outbox.stats()[0]._asdict().items() >= {"queue": "mail", "waiting": 1}.items()
        outbox.check(contact=True)
        assert outbox.warnings == ()
        place.query("UPDATE dispatchers_outbox SET created_at = created_at - 100")
        outbox.check(contact=True)

    assert "`dispatchers relay default` hands them over" in outbox.warnings[0]


def test_what_waits_behind_a_failover_is_counted(place):
    """The rows of the outbox, and what the members of the failover have."""
    queue = MemoryDispatcher(alias="queue")
    queue.dispatch(DispatchRequest(task="t", queue="mail"))
    broker = FailoverDispatcher(to=[queue, RecordingDispatcher(alias="silent")], alias="broker")
    with configured(place, broker) as outbox:
        outbox.forwarder.start = lambda: None
        note.options(queue="mail").dispatch(n=1)

        found = {each.queue: each.waiting for each in outbox.stats(timeout=30)}

    assert found["mail"] == 2


def test_by_the_alias_alone_it_leaves_at_once(place, broker):
    """F10: without a transaction of the caller's."""
    with configured(place, broker):
        response = note.dispatch(n=1)
        processes.wait_until(lambda: broker.requests, "it stays")

    assert (response.status, response.durable) == ("deferred", True)


def test_two_outboxes_share_a_database(place, broker):
    """Each hands over its own."""
    second = RecordingDispatcher(alias="second")
    other = {"backend": "outbox", "to": "second", "store": place.url}
    with configured(place, broker), override(other=other, second=second):
        outbox = get_dispatcher()
        assert outbox._known() == ["second"]
        note.dispatch(n=1)
        get_dispatcher("other").dispatch(note.request(n=2))
        processes.wait_until(lambda: broker.requests and second.requests, "one stays")

    assert [each.payload["n"] for each in broker.requests] == [1]
    assert [each.payload["n"] for each in second.requests] == [2]


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("nonsense", "names no object"),
        ("oracle://h/db", "not installed|no SQL for 'oracle'"),
        ("nodialect://h/db", "no URL that SQLAlchemy takes"),
        (3, "store is int"),
    ],
)
def test_a_store_that_cannot_be_is_refused(broker, store, words):
    """When it is built."""
    given = {"backend": "outbox", "to": "broker", "store": store}
    with override(default=given, broker=broker), pytest.raises(ConfigurationError, match=words):
        get_dispatcher()


def test_the_command_hands_over(sqlite_place, broker):
    """The command runs it until nothing waits."""
    folder = Path(sqlite_place.url.removeprefix("sqlite:")).parent
    (folder / "dispatchers.toml").write_text(
        'target = "t"\n[targets.t]\n'
        'default = { backend = "outbox", to = "broker", store = "sqlite:shop.sqlite3" }\n'
        'broker = { backend = "sqlite", path = "queue.sqlite3" }\n'
    )
    with configured(sqlite_place, broker):
        connection = sqlite_place.connect()
        with connection:
            note.options(dispatcher=Outbox(connection)).dispatch(n=1)
        connection.close()
    words = [sys.executable, "-m", "dispatchers", "relay", "--drain"]
    done = subprocess.run(words, cwd=folder, timeout=60, check=False, capture_output=True)
    with sqlite3.connect(folder / "queue.sqlite3") as found:
        assert found.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    found.close()

    assert done.returncode == 0, done.stderr
    assert sqlite_place.count() == 0


def test_a_broker_that_swallows_packets_costs_a_deadline_per_batch(sqlite_place, queue):
    """O5: one attempt for all that is taken at once, then for one row; nothing is lost."""
    upstream = urlsplit(queue.url)
    with FaultProxy(upstream.hostname, upstream.port or 6379) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}{upstream.path}"
        broker = RQDispatcher(url=url, queue=queue.name, alias="broker", deadline=0.3)
        with configured(sqlite_place, broker) as outbox:
            outbox.forwarder.start = lambda: None
            put = [note.options(headers={"lane": f"{n % 3}"}).request(n=n) for n in range(30)]
            get_dispatcher().dispatch_many(put).raise_for_error()
            proxy.black_hole()
            for attempts in (1, 2):
                assert outbox.forwarder.step() is Step.WAITING
                assert proxy.connections == attempts
                for each in outbox.forwarder._backoffs.values():
                    each.until += 1000.0  # however late this machine is
            assert sqlite_place.count("why IS NOT NULL") == 2
            assert outbox.forwarder.is_pausing

            proxy.heal()
            outbox.forwarder.run(lambda: False, drain=True)
        broker.close()

    for lane in range(3):
        assert [each for each in queue.ids() if each in ids(put[lane::3])] == ids(put[lane::3])
    assert sorted(queue.ids()) == sorted(ids(put))


def test_callers_do_not_wait_for_a_broker_that_swallows_packets(sqlite_place):
    """O5: they write their rows while the forwarder waits."""
    with FaultProxy() as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        broker = RQDispatcher(url=url, alias="broker", deadline=60.0)
        with configured(sqlite_place, broker) as outbox:
            outbox.forwarder.start = lambda: None
            assert note.dispatch(n=1).status == "deferred"
            waiting = threading.Thread(target=outbox.forwarder.step, daemon=True)
            waiting.start()
            processes.wait_until(lambda: proxy.connections, "it is not tried")

            assert note.dispatch(n=2).status == "deferred"
            with sqlite_place.connect() as connection:
                assert Outbox(connection).dispatch(note.request(n=3)).status == "deferred"
            assert waiting.is_alive()
            assert sqlite_place.count() == 3
            proxy.reset()
            waiting.join(30)
            assert not waiting.is_alive()
        broker.close()


def ids(requests: Iterable[DispatchRequest]) -> list[str]:
    return [each.id for each in requests]
