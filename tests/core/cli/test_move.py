"""`move`: what waits in one backend goes to another, each piece one way (O16)."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchRequest, close_all, get_dispatcher
from dispatchers.testing import processes

from .conftest import Shop

CONFIG = """modules = ["cli_shop", "cli_shop_notes"]
target = "test"
[targets.test]
default = { backend = "sqlite", path = "old.db", lease = 60.0 }
new = { backend = "sqlite", path = "new.db" }
again = { backend = "sqlite", path = "link.db" }
both = { backend = "failover", to = ["new", "again"] }
here = "inline"
gone = { backend = "sqlite", path = "no/such/folder.db" }
memory = "memory"
"""
NOTES = """
import os
import time

from dispatchers import current_run, task

@task(name="shop.note")
def note(n: int) -> None:
    while os.path.exists("wait"):
        time.sleep(0.01)
    file = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{n} {current_run().request.id}\\n".encode())
    os.close(file)
"""


@pytest.fixture
def moving(shop: Shop) -> Iterator[Shop]:
    shop.module("cli_shop_notes", NOTES)
    shop.configure(CONFIG)
    (shop.folder / "old.db").touch(0o600)
    (shop.folder / "link.db").symlink_to("old.db")
    yield shop
    close_all()


def old() -> BaseDispatcher:
    return get_dispatcher("default")


def put(count: int, **options: Any) -> list[DispatchRequest]:
    """Dispatch notes to the old backend."""
    requests = [
        DispatchRequest(task="shop.note", payload={"n": n}, **options) for n in range(count)
    ]
    old().dispatch_many(requests).raise_for_error()
    return requests


def waiting(alias: str) -> int:
    found = get_dispatcher(alias).stats()
    return sum((each.waiting or 0) + (each.delayed or 0) for each in found)


def envelopes(alias: str) -> list[DispatchRequest]:
    """Return what a backend has, in the order in which its workers would take it."""
    claims: Any = get_dispatcher(alias)._moving(None)
    claims.renew()
    found = claims.claim(10_000)
    claims.settle((), found)
    claims.close()
    return [DispatchRequest.model_validate_json(each.body) for each in found]


def noted(shop: Shop) -> list[tuple[int, str]]:
    path = shop.folder / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


@contextmanager
def program(shop: Shop, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own, and end it."""
    command = [sys.executable, "-m", "dispatchers", *argv]
    # Into a file: a worker whose log is not read waits for its pipe in the end.
    with (
        (shop.folder / "log").open("ab") as log,
        subprocess.Popen(
            command, cwd=shop.folder, stderr=log, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            processes.kill(processes.family(process.pid))
            process.communicate()


# What moves.


def test_everything_moves_in_order(moving: Shop) -> None:
    """The same envelopes under the same ids, in the same order; the old backend has nothing."""
    requests = put(250)

    said = moving("move", "--from", "default", "--to", "new", "--json")

    assert said.code == 0
    assert json.loads(said.out) == {
        "moved": 250,
        "known": 0,
        "not_ours": 0,
        "refused": {},
        "in_doubt": 0,
        "ended": True,
    }
    assert waiting("default") == 0
    assert envelopes("new") == requests


def test_an_envelope_arrives_as_it_was(moving: Shop) -> None:
    """Queue, priority, key, headers, trace, context, limits and eta are what they were."""
    eta = datetime.now(UTC) + timedelta(hours=3)
    request = DispatchRequest(
        task="shop.note",
        payload={"n": 1},
        queue="mail",
        eta=eta,
        expires=timedelta(days=2),
        priority=40,
        time_limit=7,
        max_attempts=4,
        idempotency_key="k",
        headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        context={"tenant": 7},
    )
    assert old().dispatch(request).ok

    said = moving("move", "--from", "default", "--to", "new")

    assert said.code == 0
    assert "1 moved from 'default' to 'new'" in said.out
    assert envelopes("new") == [request]
    assert waiting("default") == 0


def test_what_was_tried_keeps_the_attempts_that_are_left(moving: Shop) -> None:
    """A retry that waits goes with its time, and with one attempt less."""
    request = DispatchRequest(task="shop.boom", payload={}, max_attempts=5)
    assert old().dispatch(request).ok
    due = _retried_in_an_hour()

    assert moving("move", "--from", "default", "--to", "new").code == 0

    (moved,) = envelopes("new")
    assert (moved.id, moved.max_attempts) == (request.id, 4)
    assert moved.eta is not None
    assert abs(moved.eta.timestamp() - due) < 0.001


def _retried_in_an_hour() -> float:
    """Have the first attempt of what waits fail."""
    from dispatchers.sqlite._records import Finish

    store: Any = old()._store  # type: ignore[attr-defined]
    owner = store.owners.register(timeout=5)
    (job,) = store.exchange((), owner=owner, queues=None, limit=1, timeout=5).jobs
    due = float(datetime.now(UTC).timestamp() + 3600)
    store.exchange([Finish.retry(job, run_at=due)], owner=owner, queues=(), limit=0, timeout=5)
    store.owners.leave(owner, timeout=5)
    return due


def test_one_queue_may_be_named(moving: Shop) -> None:
    """The others stay; a misspelt one is an error with the nearest name."""
    put(3, queue="mail")
    put(2, queue="slow")

    said = moving("move", "--from", "default", "--to", "new", "--queue", "mail")
    wrong = moving("move", "--from", "default", "--to", "new", "--queue", "sloww")

    assert (said.code, waiting("default"), waiting("new")) == (0, 2, 3)
    assert wrong.code == 2
    assert "did you mean 'slow'?" in wrong.err


def test_it_can_be_moved_back(moving: Shop) -> None:
    """The old backend remembers neither ids nor keys of what left."""
    requests = put(3, idempotency_key=None)
    assert old().dispatch(keyed := requests[0].replace(id="keyed", idempotency_key="k")).ok

    there = moving("move", "--from", "default", "--to", "new")
    back = moving("move", "--from", "new", "--to", "default")

    assert (there.code, back.code) == (0, 0)
    assert envelopes("default") == [*requests, keyed]
    assert waiting("new") == 0


def test_a_dry_run_only_counts(moving: Shop) -> None:
    """Nothing is claimed."""
    put(2)
    put(1, delay=timedelta(hours=1))

    said = moving("move", "--from", "default", "--to", "new", "--dry-run", "--json")

    assert json.loads(said.out) == [{"queue": "default", "waiting": 2, "delayed": 1}]
    assert (waiting("default"), waiting("new")) == (3, 0)


# What cannot be moved.


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["default", "default"], "both 'default'"),
        (["default", "neww"], "did you mean 'new'?"),
        (["defaul", "new"], "did you mean 'default'?"),
        (["default", "again"], "in the same place"),
        (["default", "both"], "in the same place"),
        (["default", "here"], "runs tasks in the call"),
        (["default", "memory"], "in the memory of this process"),
        (["default", "gone"], "dispatcher 'gone': no directory"),
        (["memory", "new"], "backend 'memory' of 'memory' gives no work away"),
    ],
)
def test_what_makes_no_sense_is_refused(moving: Shop, argv: list[str], words: str) -> None:
    """Before anything is claimed; the same file under another name is the same place."""
    put(1)

    said = moving("move", "--from", argv[0], "--to", argv[1])

    assert said.code == 2
    assert words in said.err
    assert waiting("default") == 1


def test_what_is_refused_stays(moving: Shop) -> None:
    """Work that the new backend cannot do goes back, with the reason; the rest moves."""
    put(3)
    database: Any = old()._store.database  # type: ignore[attr-defined]
    with database.transaction(timeout=5) as connection:
        connection.execute("UPDATE jobs SET body = ? WHERE seq = 2", (b"{}",))

    said = moving("move", "--from", "default", "--to", "new")

    assert said.code == 1
    assert "2 moved" in said.out
    assert "1 left: no envelope" in said.err
    assert (waiting("default"), waiting("new")) == (1, 2)


# Both sides at work, and what is killed.


def test_both_workers_run_while_it_moves(moving: Shop) -> None:
    """O16: each piece is executed once, some by the old worker and some by the new one."""
    requests = put(1000)
    workers = ["worker", "--concurrency", "1", "--no-relay"]
    (moving.folder / "wait").touch()
    with program(moving, *workers, "default"), program(moving, *workers, "new"):
        processes.wait_until(lambda: _running() > 0, "no worker works")
        with program(moving, "move", "--from", "default", "--to", "new", "--json") as move:
            processes.wait_until(lambda: waiting("new") > 0, "nothing is moved")
            (moving.folder / "wait").unlink()
            out, _ = move.communicate(timeout=120)
        while (seen := len(noted(moving))) < 1000:
            processes.wait_until(lambda n=seen: len(noted(moving)) > n, "work is not done")

    found = json.loads(out)
    assert (move.returncode, found["ended"], found["refused"]) == (0, True, {})
    assert 0 < found["moved"] < 1000
    assert sorted(noted(moving)) == sorted((r.payload["n"], r.id) for r in requests)


def test_killed_in_the_middle_it_is_resumed(moving: Shop) -> None:
    """Nothing is lost, whatever it was doing; a second run goes on, and knows what was there."""
    moving.configure(CONFIG.replace("lease = 60.0", "lease = 1.0"))
    requests = put(500)
    argv = ("move", "--from", "default", "--to", "new")
    with program(moving, *argv, "--follow") as move:
        processes.wait_until(lambda: waiting("new") > 0, "nothing is moved")
        with held(moving.folder / "new.db"):
            requests += put(500)
            processes.wait_until(lambda: _running() > 0, "nothing is claimed")
            processes.kill(processes.family(move.pid))
    assert waiting("new") < 1000

    said = moving(*argv)

    assert said.code == 0
    assert waiting("default") == 0
    assert Counter(each.id for each in envelopes("new")) == Counter(each.id for each in requests)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
def test_a_signal_ends_it(moving: Shop) -> None:
    """Ctrl-C: what is claimed goes back at once, and the exit code says that it was not the end."""
    # As many as take seconds: the lock below comes long before their end.
    put(10_000)
    with program(moving, "move", "--from", "default", "--to", "new", "--json") as move:
        processes.wait_until(lambda: waiting("new") > 0, "nothing is moved")
        with held(moving.folder / "new.db"):
            processes.wait_until(lambda: _running() > 0, "nothing is claimed")
            move.send_signal(signal.SIGINT)
            out, _ = move.communicate(timeout=60)

    found = json.loads(out)
    assert (move.returncode, found["ended"]) == (130, False)
    assert (waiting("default"), _running()) == (10_000 - found["moved"], 0)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file's write lock, so that a dispatcher gets no answer."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def _running() -> int:
    return sum(each.running or 0 for each in old().stats())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
def test_it_may_go_on_with_what_comes_later(moving: Shop) -> None:
    """`--follow` ends by Ctrl-C only, and that is no failure."""
    with program(moving, "move", "--from", "default", "--to", "new", "--follow") as move:
        put(2)
        processes.wait_until(lambda: waiting("new") == 2, "nothing is moved")
        put(2)
        processes.wait_until(lambda: waiting("new") == 4, "what came later is not moved")
        move.send_signal(signal.SIGTERM)
        move.communicate(timeout=60)

    assert move.returncode == 0
