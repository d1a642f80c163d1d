"""`dispatchers worker` with Dramatiq's own worker, on Redis and on RabbitMQ."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
from dispatchers_dramatiq import DramatiqDispatcher
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name, xq_name

from dispatchers.stores import dead_letters
from dispatchers.testing import Journal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills process groups")

HERE = Path(__file__).parent
PATIENCE = 40.0
BROKER = """
from dispatchers_dramatiq import register
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = {made}
register(broker)
"""


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("dramatiq_work", HERE / "work.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dramatiq_work"] = module
    spec.loader.exec_module(module)
    return module


work = _module()


class Place:
    """A queue, its configuration in a folder, and workers on it."""

    def __init__(self, kind: str, url: str, folder: Path) -> None:
        self.folder = folder
        self.kind = kind
        self.url = url
        self.queue = f"worker-{uuid4().hex}"
        self.namespace = f"dramatiq-{uuid4().hex}"
        self.letters = f"sqlite:{folder / 'dead.db'}"
        host = url.removesuffix("//") + "/%2F"
        self.broker: Any = (
            RedisBroker(url=url, namespace=self.namespace)
            if kind == "redis"
            else RabbitmqBroker(url=host)
        )
        settings = f"url={url!r}, namespace={self.namespace!r}, heartbeat_timeout=3000"
        made = f"RedisBroker({settings})" if kind == "redis" else f"RabbitmqBroker(url={host!r})"
        options = {
            "queue": self.queue,
            "dead_letters": self.letters,
            "deadline": 5.0,
            "max_deliveries": 3,
        }
        (folder / "dramatiq_work.py").write_text((HERE / "work.py").read_text())
        (folder / "dramatiq_app.py").write_text(BROKER.format(made=made))
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        head = 'tasks = ["dramatiq_work"]\ntarget = "t"\n[targets.t.default]\n'
        where = 'backend = "dramatiq"\nbroker = "dramatiq_app:broker"\n'
        (folder / "dispatchers.toml").write_text(head + where + "\n".join(lines) + "\n")
        self.dispatcher = DramatiqDispatcher(broker=self.broker, **options)
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, program: str = "dispatchers") -> subprocess.Popen[bytes]:
        """A worker, with a log that a failing test shows."""
        command = [sys.executable, "-m", program]
        if program == "dispatchers":
            command += ["worker", "--concurrency", "2"]
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [*command, *arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def kill(self) -> None:
        """`kill -9` of every worker."""
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()

    def revive(self) -> None:
        """Start the worker again if its work has ended it, as any supervisor does."""
        if self.workers[-1].poll() is not None:
            self.start()

    def journal(self) -> Journal:
        return Journal(self.folder / f"{uuid4().hex}.journal")

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def until(self, true: Callable[[], bool], *, revive: bool = False) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.log()[-4000:]
            if revive:
                self.revive()
            time.sleep(0.02)

    def native_dead(self) -> list[str]:
        """The ids in Dramatiq's own queue of dead letters, taken out of it."""
        if self.kind == "redis":
            kept = self.broker.client.hvals(f"{self.namespace}:{self.queue}.XQ.msgs")
            return [dramatiq.Message.decode(each).message_id for each in kept]
        found = []
        channel = self.broker.connection.channel()
        while (got := channel.basic_get(xq_name(self.queue), auto_ack=True))[0] is not None:
            found.append(dramatiq.Message.decode(got[2]).message_id)
        channel.close()
        return found

    def close(self) -> None:
        self.kill()
        self.dispatcher.close()
        if self.kind == "redis":
            for key in self.broker.client.scan_iter(f"{self.namespace}:*"):
                self.broker.client.delete(key)
            self.broker.client.close()
        else:
            channel = self.broker.connection.channel()
            for name in (self.queue, dq_name(self.queue), xq_name(self.queue)):
                channel.queue_delete(name)
        self.broker.close()


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    url = request.getfixturevalue(f"shared_{request.param}")
    found = Place(request.param, url, tmp_path_factory.mktemp(f"dramatiq-{request.param}"))
    found.start()
    yield found
    found.close()


@pytest.fixture
def fresh(place: Place, tmp_path: Path) -> Iterator[Place]:
    """A queue on which nothing is left of other tests, and no worker yet."""
    found = Place(place.kind, place.url, tmp_path)
    yield found
    found.close()


def test_work_runs_in_dramatiqs_worker(place: Place) -> None:
    """A task runs under its own name, and nothing of its arguments is shown by the worker."""
    journal = place.journal()

    response = work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "secret-text")
    place.until(lambda: bool(journal.entries))

    assert response.status == "accepted"
    assert response.confirmed
    assert journal.entries[0].request_id == response.request_id
    assert journal.entries[0].pid == place.workers[-1].pid
    assert "secret-text" not in place.log()


def test_failing_work_is_tried_again_and_dead_lettered(place: Place) -> None:
    """C9: attempts are counted; the last failure ends in the store and in the native queue."""
    journal = place.journal()

    response = work.fail.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)
    place.until(lambda: response.request_id in place.native_dead())

    letter = dead_letters(place.letters).get(response.request_id)
    assert [entry.attempt for entry in journal.entries] == [1, 2, 3]
    assert letter is not None
    assert (letter.reason, letter.attempts) == ("exhausted", 3)


def test_work_that_kills_its_worker_runs_again(place: Place) -> None:
    """C9: a run whose process is killed is delivered again, and counted."""
    journal = place.journal()

    work.die.options(dispatcher=place.dispatcher).dispatch(journal.path, 1)
    place.until(lambda: "ended" in journal.texts, revive=True)

    assert journal.texts == ["began", "began", "ended"]
    assert [entry.deliveries for entry in journal.entries] == [1, 2, 2]


@pytest.mark.slow
def test_work_that_always_kills_its_worker_is_given_up(place: Place) -> None:
    """C10: beyond `max_deliveries` it is a dead letter, and not run any more."""
    journal = place.journal()

    response = work.die.options(dispatcher=place.dispatcher).dispatch(journal.path, 99)
    place.until(
        lambda: dead_letters(place.letters).get(response.request_id) is not None, revive=True
    )

    letter = dead_letters(place.letters).get(response.request_id)
    assert journal.texts == ["began"] * 3
    assert letter is not None
    assert letter.reason == "too_many_deliveries"


def test_a_time_limit_interrupts_a_run(place: Place) -> None:
    """A run beyond its time limit is interrupted by Dramatiq, and failed."""
    journal = place.journal()

    response = work.limited.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    letter = dead_letters(place.letters).get(response.request_id)
    assert journal.texts == ["began"]
    assert letter is not None
    assert letter.error is not None
    assert "TimeLimitExceeded" in str(letter.error.exception_type)


def test_an_unknown_task_is_handed_back_not_dropped(place: Place) -> None:
    """C11: Dramatiq dead-letters what it has no actor for; ours come back."""
    journal = place.journal()
    request = work.note.request(journal.path, "later").replace(task="dramatiq_tests.unheard_of")

    response = place.dispatcher.dispatch(request).raise_for_error()
    place.until(lambda: "unheard_of" in place.log())
    followed = work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "after")
    place.until(lambda: "after" in journal.texts)

    assert followed.ok
    assert dead_letters(place.letters).get(response.request_id) is None
    assert response.request_id not in place.native_dead()


def test_a_converted_task_takes_messages_of_its_former_life(place: Place) -> None:
    """Plain arguments as `send` writes them, and envelopes, under one name."""
    path = place.folder / f"{uuid4().hex}.txt"
    place.broker.declare_queue(place.queue)

    plain = dramatiq.Message(
        queue_name=place.queue,
        actor_name="dramatiq_tests.converted",
        args=(str(path), "send"),
        kwargs={},
        options={},
    )
    place.broker.enqueue(plain)
    work.converted.options(dispatcher=place.dispatcher).dispatch(str(path), "ours")
    place.until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)

    assert sorted(path.read_text().split()) == ["ours", "send"]


def test_a_worker_stops_when_it_is_told_to(place: Place) -> None:
    """SIGTERM: what runs is finished, and the worker ends with 0."""
    journal = place.journal()
    worker = place.workers[-1]
    work.slow.options(dispatcher=place.dispatcher).dispatch(journal.path, 1.0)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()

    assert worker.wait(PATIENCE) == 0
    assert journal.texts == ["began", "ended"]
    place.start()


def test_a_run_is_told_that_the_worker_stops(place: Place) -> None:
    """C8: what it gives back then is no attempt."""
    journal = place.journal()
    worker = place.workers[-1]
    work.patient.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()
    code = worker.wait(PATIENCE)
    stopped = journal.texts
    worker = place.start()
    place.until(lambda: len(journal.texts) == 3)
    worker.terminate()
    worker.wait(PATIENCE)

    assert code == 0
    assert stopped == ["began", "stops"]
    assert {entry.attempt for entry in journal.entries} == {1}


def test_a_run_beyond_the_grace_goes_back(fresh: Place) -> None:
    """C9: another worker gets it at once, as the same attempt and delivery; the code is 1."""
    journal = fresh.journal()
    worker = fresh.start("--grace", "0s")
    work.slow_once.options(dispatcher=fresh.dispatcher).dispatch(journal.path)
    fresh.until(lambda: journal.texts == ["began"])

    worker.terminate()
    code = worker.wait(PATIENCE)
    fresh.start()
    fresh.until(lambda: "ended" in journal.texts)

    assert (code, journal.texts) == (1, ["began", "began", "ended"])
    assert {(entry.attempt, entry.deliveries) for entry in journal.entries} == {(1, 1)}


def test_what_a_stopping_worker_had_not_begun_is_no_delivery(
    fresh: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C10: a deploy is no reason to count: what was fetched and not run goes back as it was."""
    monkeypatch.setenv("dramatiq_queue_prefetch", "8")
    journal = fresh.journal()
    for _ in range(2):
        work.slow.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 2.0)
    worker = fresh.start()
    fresh.until(lambda: len(journal.texts) == 2)
    for _ in range(2):
        work.slow.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 0.0)
    publisher = fresh.dispatcher.publisher
    fresh.until(lambda: publisher.waiting([fresh.queue], 5.0) == 0 or fresh.kind == "redis")

    worker.terminate()
    worker.wait(PATIENCE)
    fresh.start()
    fresh.until(lambda: journal.texts.count("ended") == 4)

    assert {entry.deliveries for entry in journal.entries} == {1}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_whole_group_cuts_no_run(fresh: Place, number: signal.Signals) -> None:
    """C9: as a terminal sends it: what runs is finished, once, and the worker ends with 0."""
    journal = fresh.journal()
    work.slow.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 1.0)
    worker = fresh.start()
    fresh.until(lambda: "began" in journal.texts)

    os.killpg(worker.pid, number)
    code = worker.wait(PATIENCE)
    fresh.start("--drain").wait(PATIENCE)

    assert code == 0
    assert journal.texts == ["began", "ended"]


def test_delayed_work_stands_in_nobodys_way(fresh: Place) -> None:
    """More of it than Dramatiq prefetches keeps neither what is due now nor what is due soon."""
    journal = fresh.journal()
    note = work.note.options(dispatcher=fresh.dispatcher, deadline=30)
    far = note.options(delay=timedelta(hours=1))
    many = [far.request(journal.path, "far") for _ in range(2500)]
    assert fresh.dispatcher.dispatch_many(many).ok
    note.options(delay=timedelta(seconds=1)).dispatch(journal.path, "soon").raise_for_error()

    fresh.start("--concurrency", "1")
    note.dispatch(journal.path, "now").raise_for_error()
    fresh.until(lambda: len(journal.texts) == 2)

    assert sorted(journal.texts) == ["now", "soon"]


def test_every_end_of_a_run_is_an_outcome(place: Place) -> None:
    """What is no `Exception` is tried again and dead-lettered like any other failure."""
    place.revive()
    journal = place.journal()

    response = work.odd.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    assert journal.texts == ["ran", "ran"]


def test_a_swallowed_time_limit_is_no_success(place: Place) -> None:
    """The run that goes on beyond its limit has failed, whatever it catches."""
    place.revive()
    journal = place.journal()

    response = work.deaf.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    assert journal.texts == ["began", "returned"]


def test_async_runs_of_a_thread_share_a_loop(place: Place) -> None:
    """A client that a module keeps is not found on a closed loop by the second run."""
    place.revive()
    journal = place.journal()

    for _ in range(6):
        work.loop.options(dispatcher=place.dispatcher).dispatch(journal.path).raise_for_error()
    place.until(lambda: len(journal.texts) == 6)

    assert set(journal.texts) == {"same"}


def test_context_variables_do_not_leak(place: Place) -> None:
    """Each run has a context of its own."""
    place.revive()
    journal = place.journal()

    for _ in range(6):
        work.leak.options(dispatcher=place.dispatcher).dispatch(journal.path).raise_for_error()
    place.until(lambda: len(journal.texts) == 6)

    assert set(journal.texts) == {"nothing"}


def test_draining_ends_when_there_is_nothing_left(fresh: Place) -> None:
    """`dispatchers worker --drain` ends by itself, after work that was delayed as well."""
    journal = fresh.journal()
    for number in range(5):
        work.note.options(dispatcher=fresh.dispatcher).dispatch(journal.path, str(number))

    drained = fresh.start("--drain")

    assert drained.wait(PATIENCE) == 0
    assert sorted(journal.texts) == [str(number) for number in range(5)]


def test_dramatiqs_own_command_runs_it_as_well(place: Place) -> None:
    """`dramatiq module:broker` with the one line of registration."""
    place.kill()
    journal = place.journal()
    modules = ("dramatiq_app:broker", "dramatiq_work", "--processes", "1", "--threads", "1")
    place.start(*modules, program="dramatiq")

    work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "native")
    place.until(lambda: journal.texts == ["native"])

    place.kill()
    place.start()
