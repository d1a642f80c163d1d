"""`dispatchers move` from the queues of broker libraries: each piece goes one way (O16)."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchRequest
from dispatchers._config.registry import load_backend
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.moving import BATCH, Move
from dispatchers.testing import Journal, RecordingDispatcher, processes
from dispatchers.testing.servers import RedisServer

from .workflow_backends import WINDOW, Backend, opened

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

OLD = ["celery/redis", "dramatiq/redis", "rq"]


def foreign_job_of_rq(old: Any) -> None:
    import rq

    queue = rq.Queue(old.options.queue, connection=old.broker.own_client())
    queue.enqueue("os.getpid")


def foreign_message_of_celery(old: Any) -> None:
    old.broker.app.send_task("shop.native", args=[1], queue=old.options.queue)


def foreign_message_of_dramatiq(old: Any) -> None:
    import dramatiq

    # Of a converted task's former life: it has plain arguments, and Dramatiq's own options.
    name = "dispatchers.testing.note"
    message = dramatiq.Message(old.options.queue, name, ("nowhere", "text"), {}, {})
    old.broker.dramatiq.enqueue(message)


FOREIGN: dict[str, Callable[[Any], None]] = {
    "celery": foreign_message_of_celery,
    "dramatiq": foreign_message_of_dramatiq,
    "rq": foreign_job_of_rq,
}


class Site:
    """An old backend and a new one, in one configuration."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.folder, self.backend = folder, backend
        self.journal = Journal(folder / "journal")
        self.new = SQLiteDispatcher(path=folder / "new.db")
        self.old = self._old()
        lines = [f"{key} = {json.dumps(value)}" for key, value in backend.options.items()]
        (folder / "anywhere_app.py").write_text(backend.app)
        (folder / "dispatchers.toml").write_text(
            'modules = ["dispatchers.testing.tasks"]\ntarget = "t"\n'
            '[targets.t]\nnew = { backend = "sqlite", path = "new.db" }\n'
            f'[targets.t.old]\nbackend = "{backend.name}"\n' + "\n".join(lines) + "\n"
        )

    def _old(self) -> BaseDispatcher:
        """Return the old backend's dispatcher, with an application of this test's own."""
        options = dict(self.backend.options)
        names: dict[str, Any] = {}
        exec(self.backend.app, names)
        for option in ("app", "broker"):
            if option in options:
                options[option] = names[option]
        kind: Any = load_backend(self.backend.name)
        made: BaseDispatcher = kind(**options)
        return made

    def put(self, count: int, **options: Any) -> list[DispatchRequest]:
        """Dispatch notes to the old backend."""
        requests = []
        for n in range(count):
            payload = {"journal": self.journal.path, "text": f"{n}"}
            values = {"task": "dispatchers.testing.note", "payload": payload, **options}
            requests.append(DispatchRequest.model_validate(values))
        self.old.dispatch_many(requests).raise_for_error()
        return requests

    def waiting(self, dispatcher: BaseDispatcher) -> int:
        return sum((each.waiting or 0) + (each.delayed or 0) for each in dispatcher.stats())

    def arrived(self) -> list[DispatchRequest]:
        """Return what the new backend has, in the order of its workers."""
        return envelopes(self.new)

    @contextmanager
    def program(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in a process of its own, and end it."""
        with (
            (self.folder / "log").open("ab") as log,
            subprocess.Popen(
                [sys.executable, "-m", "dispatchers", *argv],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                processes.kill(processes.family(process.pid))
                process.communicate()

    def has_moved(self) -> bool:
        """Tell whether the new backend has, or had, some work."""
        counts = self.new._store.counts()
        return bool(counts.ready or counts.running or counts.done)

    def works(self, done: Callable[[], bool]) -> None:
        """Wait until all is done; however long, as long as something is done meanwhile."""
        while not done():
            seen = len(self.journal.entries)
            more = lambda: len(self.journal.entries) > seen or done()  # noqa: B023
            processes.wait_until(more, "work is not done")

    def ran(self) -> Counter[str]:
        """Return how often each piece was run, by its id."""
        entries = self.journal.entries
        return Counter(each.request_id for each in entries if each.text != "began")

    def move(self, *more: str, old: str = "old", new: str = "new") -> dict[str, Any]:
        """Move to the end, and return what the command says."""
        argv = ("move", "--from", old, "--to", new, "--json", *more)
        with self.program(*argv) as process:
            out, _ = process.communicate(timeout=120)
        assert out, (self.folder / "log").read_text()[-4000:]
        return {**json.loads(out), "code": process.returncode}

    def close(self) -> None:
        self.old.close()
        self.new.close()


def envelopes(dispatcher: Any) -> list[DispatchRequest]:
    """Return what waits, in the order of the workers, and leave it there."""
    claims = dispatcher._moving(None)
    claims.renew()
    found: list[Any] = []
    while some := claims.claim(500):
        found += some
    claims.settle((), found)
    claims.close()
    return [DispatchRequest.model_validate_json(each.body) for each in found]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a file's write lock, so that a dispatcher gets no answer."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture(params=OLD)
def backend(
    request: pytest.FixtureRequest, shared_redis: str, shared_rabbitmq: str, tmp_path: Path
) -> Iterator[Backend]:
    servers = {"redis": shared_redis, "rabbitmq": shared_rabbitmq}
    with opened(request.param, tmp_path, servers.__getitem__) as found:
        yield found


@pytest.fixture
def site(backend: Backend, tmp_path: Path) -> Iterator[Site]:
    """A site whose claims last a minute: a busy machine must not be taken for a dead process."""
    patient = backend.app.replace(f"{WINDOW},", "60.0,").replace("=5000", "=60000")
    leases = {name: 60.0 for name in backend.options if name == "lease"}
    options = {**backend.options, **leases}
    made = Site(tmp_path, backend._replace(options=options, app=patient))
    yield made
    made.close()


@pytest.fixture
def hasty(backend: Backend, tmp_path: Path) -> Iterator[Site]:
    """A site whose claims last seconds."""
    made = Site(tmp_path, backend)
    yield made
    made.close()


def ids(requests: Sequence[DispatchRequest]) -> list[str]:
    return [each.id for each in requests]


def test_all_of_ours_moves_in_order(site: Site) -> None:
    """The same envelopes in the same order, with their times; what is not ours stays, counted."""
    FOREIGN[site.backend.name](site.old)
    due = site.put(250, headers={"traceparent": "00-1-2-01"}, context={"tenant": 7})
    FOREIGN[site.backend.name](site.old)
    eta = datetime.now(UTC) + timedelta(hours=1)
    later = [r for n in range(3) for r in site.put(1, eta=eta + timedelta(minutes=n))]

    found = site.move()

    assert (found["code"], found["moved"], found["not_ours"]) == (0, 253, 2)
    assert site.arrived() == [*due, *later]
    assert site.waiting(site.old) == 2


def test_both_workers_run_while_it_moves(site: Site) -> None:
    """O16: 1,000 pieces, each executed once, some by the old worker and some by the new one."""
    # The first waits until something was moved: else the old worker might run all of it before.
    first = site.put(1, task="dispatchers.testing.linger", payload={"journal": site.journal.path})
    requests = [*first, *site.put(999)]
    worker = ("worker", "--concurrency", "1")
    with site.program(*worker, "old"), site.program(*worker, "new"):
        processes.wait_until(lambda: bool(site.journal.entries), "no worker works")
        with site.program("move", "--from", "old", "--to", "new", "--json") as move:
            processes.wait_until(lambda: site.has_moved(), "nothing is moved")
            site.journal.release()
            out, _ = move.communicate(timeout=120)
        site.works(lambda: site.ran().keys() >= set(ids(requests)))

    found = json.loads(out)
    assert (move.returncode, found["ended"], found["known"]) == (0, True, 0)
    assert 0 < found["moved"] < 1000
    assert site.ran() == Counter(ids(requests))


def test_killed_in_the_middle_it_is_resumed(hasty: Site) -> None:
    """Nothing is lost or doubled: what was claimed comes back, and the next run moves it."""
    requests = hasty.put(300)
    with hasty.program("move", "--from", "old", "--to", "new", "--follow") as move:
        processes.wait_until(lambda: hasty.waiting(hasty.new) == 300, "it does not move")
        with held(hasty.folder / "new.db"):
            requests += hasty.put(200)
            later = hasty.put(20, delay=timedelta(hours=1))
            processes.wait_until(lambda: hasty.waiting(hasty.old) < 220, "nothing is claimed")
            processes.kill(processes.family(move.pid))
    assert hasty.waiting(hasty.new) == 300

    found = hasty.move()

    assert found["code"] == 0
    assert hasty.waiting(hasty.old) == 0
    assert Counter(ids(hasty.arrived())) == Counter(ids([*requests, *later]))


def test_killed_at_random_while_both_workers_run_it_loses_nothing(hasty: Site) -> None:
    """Whatever is killed when: all of it runs, and repeats are those of a kill, under their ids."""
    requests, kills = hasty.put(3000), 0
    chance = random.Random(7)
    argv = ("move", "--from", "old", "--to", "new", "--follow")
    with hasty.program("worker", "old"), hasty.program("worker", "new"):
        while hasty.waiting(hasty.old) > 500 and kills < 8:
            with hasty.program(*argv) as move:
                before = hasty.waiting(hasty.old)
                goal = before - chance.randrange(1, 300)
                processes.wait_until(lambda g=goal: hasty.waiting(hasty.old) <= g, "nothing leaves")
                processes.kill(processes.family(move.pid))
            kills += 1
        found = hasty.move()
        missing = set(ids(requests))
        hasty.works(lambda: missing <= hasty.ran().keys())

    ran = hasty.ran()
    assert (found["code"], kills > 0) == (0, True)
    assert ran.keys() == missing
    assert ran.total() - len(requests) <= kills * BATCH


def test_claims_without_an_answer_are_given_back(site: Site) -> None:
    """As after a connection that was cut: what is known stays claimed, the rest is where it was."""
    requests = site.put(4) + site.put(2, delay=timedelta(hours=1))
    claims: Any = site.old._moving(None)
    claims.renew()
    known = claims.claim(2)
    while claims.claim(10):
        pass

    claims.recover(known)
    alive = claims.renew()
    again = [*claims.claim(10), *claims.claim(10)]

    assert alive
    bodies = [DispatchRequest.model_validate_json(each.body) for each in [*known, *again]]
    assert sorted(ids(bodies[:4])) == sorted(ids(requests[:4]))
    assert bodies[:2] == requests[:2]
    assert sorted(ids(bodies[4:])) == sorted(ids(requests[4:]))
    claims.settle((), [*known, *again])
    claims.close()


@pytest.mark.parametrize("backend", ["celery/redis", "dramatiq/redis", "rq"])
def test_a_broker_that_is_killed_costs_nothing(
    private_redis: RedisServer, tmp_path: Path, backend: str
) -> None:
    """The old broker is killed in the midst, and comes back: the same run goes on to the end."""
    with opened(backend, tmp_path, lambda _: private_redis.url) as found:
        site = Site(tmp_path, found)
        requests = site.put(3000)
        with site.program("move", "--from", "old", "--to", "new", "--json") as move:
            processes.wait_until(site.has_moved, "nothing is moved")
            private_redis.kill()
            private_redis.start()
            out, _ = move.communicate(timeout=180)

        said = json.loads(out)
        assert (move.returncode, said["ended"], said["refused"]) == (0, True, {})
        assert Counter(ids(site.arrived())) == Counter(ids(requests))
        assert site.waiting(site.old) == 0
        site.close()


def test_what_goes_back_is_where_it_was(site: Site) -> None:
    """Ctrl-C: all is in its old place at once, in its old order, scheduled work with its time."""
    requests = site.put(250)
    eta = datetime.now(UTC) + timedelta(hours=1)
    requests += [r for n in range(3) for r in site.put(1, eta=eta + timedelta(minutes=n))]
    with site.program("move", "--from", "old", "--to", "new", "--follow", "--json") as move:
        processes.wait_until(lambda: site.waiting(site.new) == 253, "it does not move")
        with held(site.folder / "new.db"):
            left = site.put(150)
            left += [r for n in range(3) for r in site.put(1, eta=eta + timedelta(minutes=n))]
            processes.wait_until(lambda: site.waiting(site.old) < 153, "nothing is claimed")
            move.send_signal(signal.SIGINT)
            out, _ = move.communicate(timeout=60)

    assert json.loads(out)["moved"] == 253
    assert site.waiting(site.old) == 153
    assert envelopes(site.old) == left


def test_what_was_tried_keeps_the_attempts_that_are_left(site: Site) -> None:
    """A retry that waits goes with its time, and with one attempt less."""
    request = DispatchRequest(
        task="dispatchers.testing.fail",
        payload={"journal": site.journal.path, "times": 9},
        max_attempts=5,
        backoff={"initial": 3600},
    )
    site.old.dispatch(request).raise_for_error()
    with site.program("worker", "--concurrency", "1", "old") as worker:
        processes.wait_until(lambda: bool(site.journal.entries), "no worker works")
        processes.wait_until(lambda: site.waiting(site.old) == 1, "it is not tried again")
        # Dramatiq's workers have delayed work in their memory, and give it back when they stop.
        worker.terminate()
        worker.communicate(timeout=60)

    found = site.move()

    assert (found["code"], found["moved"]) == (0, 1)
    (moved,) = site.arrived()
    assert (moved.id, moved.max_attempts) == (request.id, 4)
    assert moved.due is not None
    assert moved.due - datetime.now(UTC) > timedelta(minutes=50)


@pytest.mark.dispatchers_unchecked
def test_what_is_refused_goes_back(site: Site) -> None:
    """C6: to the old workers, at the end; what is due and what is scheduled."""
    due, later = site.put(5), site.put(5, delay=timedelta(hours=1))
    refused = [due[1], due[3], later[2]]
    new = RecordingDispatcher()
    new.fail_when(lambda request: request in refused, category="unsupported")

    move = Move(site.old._moving(None), new)  # type: ignore[arg-type]
    move.run(lambda: False)

    assert (move.counts.moved, move.counts.refused.total()) == (7, 3)
    assert envelopes(site.old) == refused
    assert site.waiting(site.old) == 3


def test_work_of_a_file_moves_to_it(site: Site) -> None:
    """The other way round: every backend can be moved to, and its workers run what came."""
    requests = [
        DispatchRequest(
            task="dispatchers.testing.note", payload={"journal": site.journal.path, "text": f"{n}"}
        )
        for n in range(100)
    ]
    site.new.dispatch_many(requests).raise_for_error()

    found = site.move(old="new", new="old")
    with site.program("worker", "--concurrency", "1", "old"):
        site.works(lambda: len(site.journal.entries) >= 100)

    assert (found["code"], found["moved"]) == (0, 100)
    assert [each.request_id for each in site.journal.entries] == ids(requests)
