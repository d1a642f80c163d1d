"""`dispatchers worker` with Celery's own worker, on Redis and on RabbitMQ."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, chord
from dispatchers_celery import CeleryDispatcher, adopt, native, register

from dispatchers import override
from dispatchers.stores import dead_letters
from dispatchers.testing import Journal

from .harness import delete_queues

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Celery's pool forks")

HERE = Path(__file__).parent
MAX_WAIT = 60.0


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("celery_work", HERE / "work.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["celery_work"] = module
    spec.loader.exec_module(module)
    return module


work = _module()


class Place:
    """A queue, its configuration in a folder, and workers on it."""

    def __init__(self, url: str, results: str, folder: Path) -> None:
        self.folder = folder
        self.queue = f"worker-{uuid4().hex}"
        self.letters = f"sqlite:{folder / 'dead.db'}"
        self.options = {
            "app": "shop_app:app",
            "queue": self.queue,
            "dead_letters": self.letters,
            "deadline": 5.0,
            "max_deliveries": 3,
        }
        settings = {
            "broker_url": url,
            "result_backend": results,
            "result_expires": 60,
            "task_default_queue": self.queue,
        }
        made = f"from celery import Celery\napp = Celery('shop')\napp.conf.update({settings!r})\n"
        (folder / "shop_app.py").write_text(made)
        (folder / "celery_work.py").write_text((HERE / "work.py").read_text())
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.options.items()]
        config = 'tasks = ["celery_work"]\ntarget = "t"\n[targets.t.default]\nbackend = "celery"\n'
        (folder / "dispatchers.toml").write_text(config + "\n".join(lines) + "\n")
        app = Celery("shop", set_as_current=False)
        app.conf.update(settings)
        self.dispatcher = CeleryDispatcher(**{**self.options, "app": app})
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A worker, with a log that a failing test shows."""
        command = [sys.executable, "-m", "dispatchers", "worker", "--concurrency", "1", *arguments]
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def kill(self) -> None:
        """`kill -9` of every worker and its children."""
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()

    def journal(self) -> Journal:
        return Journal(self.folder / f"{uuid4().hex}.journal")

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + MAX_WAIT
        while not true():
            assert time.monotonic() < end, self.log()[-4000:]
            time.sleep(0.02)

    def empty(self) -> None:
        """Throw away what waits."""
        with self.dispatcher.broker.app.connection_for_read() as connection:
            connection.channel().queue_purge(self.queue)

    def close(self) -> None:
        self.kill()
        app = self.dispatcher.broker.app
        self.dispatcher.close()
        delete_queues(app, self.queue)


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    url = request.getfixturevalue(f"shared_{request.param}")
    results = request.getfixturevalue("shared_redis")
    found = Place(url, results, tmp_path_factory.mktemp(f"celery-{request.param}"))
    found.start()
    yield found
    found.close()


def test_work_runs_in_celerys_worker(place: Place) -> None:
    """A task runs under its own name, and nothing of its arguments is shown by the worker."""
    journal = place.journal()

    response = work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "secret-text")
    place.until(lambda: bool(journal.entries))

    assert response.status == "accepted"
    assert response.confirmed
    assert journal.entries[0].request_id == response.request_id
    assert journal.entries[0].pid not in (os.getpid(), place.workers[0].pid)
    assert "secret-text" not in place.log()


@pytest.mark.parametrize("body", [b"", b"{}", b"\x80", b"[[1], {}]", b'"text"'])
def test_a_message_that_celery_cannot_read_is_set_aside(place: Place, body: bytes) -> None:
    """C9: it neither ends the worker, at each start again, nor stands in the way of work."""
    journal = place.journal()
    headers = {"task": work.note.name, "id": "foreign", "lang": "py"}

    with place.dispatcher.broker.app.connection_for_write() as connection:
        producer = connection.Producer()
        producer.publish(body, place.queue, "", headers=headers, content_type="application/json")
        producer.publish(body, place.queue, "", headers=headers, content_type="application/data")
    work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "after")
    place.until(lambda: bool(journal.entries))

    assert place.workers[0].poll() is None


def test_failing_work_is_tried_again_and_dead_lettered(place: Place) -> None:
    """C9: attempts are counted, and the last failure ends in the configured store."""
    journal = place.journal()

    response = work.fail.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    letter = dead_letters(place.letters).get(response.request_id)
    assert [entry.attempt for entry in journal.entries] == [1, 2, 3]
    assert letter is not None
    assert (letter.reason, letter.attempts) == ("exhausted", 3)


def test_work_that_kills_its_process_runs_again(place: Place) -> None:
    """C9: a run whose process is killed is delivered again, and counted."""
    journal = place.journal()

    work.die.options(dispatcher=place.dispatcher).dispatch(journal.path, 1)
    place.until(lambda: "ended" in journal.texts)

    assert journal.texts == ["began", "began", "ended"]
    assert [entry.deliveries for entry in journal.entries] == [1, 2, 2]


@pytest.mark.slow
def test_work_that_always_kills_its_process_is_given_up(place: Place) -> None:
    """C10: beyond `max_deliveries` it is a dead letter, and not run any more."""
    journal = place.journal()

    response = work.die.options(dispatcher=place.dispatcher).dispatch(journal.path, 99)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    letter = dead_letters(place.letters).get(response.request_id)
    assert journal.texts == ["began"] * 3
    assert letter is not None
    assert letter.reason == "too_many_deliveries"


def test_a_time_limit_interrupts_a_run(place: Place) -> None:
    """A run beyond its time limit is interrupted by Celery's soft limit, and failed."""
    journal = place.journal()

    response = work.limited.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    assert journal.texts == ["began"]


def test_an_unknown_task_is_handed_back_not_dropped(place: Place) -> None:
    """C11: Celery drops messages of tasks that it does not know; ours come back."""
    journal = place.journal()
    request = work.note.request(journal.path, "later").replace(task="celery_tests.unheard_of")

    response = place.dispatcher.dispatch(request).raise_for_error()
    place.until(lambda: "unheard_of" in place.log())
    followed = work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "after")
    place.until(lambda: "after" in journal.texts)

    assert followed.ok
    assert dead_letters(place.letters).get(response.request_id) is None


def test_a_converted_task_takes_messages_of_its_former_life(place: Place) -> None:
    """Plain arguments and envelopes, under one name, from `send_task`, `.delay()` and ours."""
    path = place.folder / f"{uuid4().hex}.txt"
    app = place.dispatcher.broker.app
    register(app, place.dispatcher)

    app.send_task("celery_tests.converted", args=[str(path), "send_task"])
    adopt(work.converted, app).delay(str(path), text="delay")
    by_name = native(work.converted.name, dispatcher="ours")
    nowhere = by_name.dispatch(str(path), "nowhere")
    with override(ours=place.dispatcher):
        by_name.dispatch(str(path), "native").raise_for_error()
    work.converted.options(dispatcher=place.dispatcher).dispatch(str(path), "ours")
    place.until(lambda: path.exists() and len(path.read_text().splitlines()) == 4)

    assert not nowhere
    assert sorted(path.read_text().split()) == ["delay", "native", "ours", "send_task"]


def test_a_former_message_is_a_run(place: Place) -> None:
    """A plain Celery message of a converted task is awaited, tried again and counted as ours."""
    journal = place.journal()
    app = place.dispatcher.broker.app

    app.send_task("celery_tests.converted_async", args=[journal.path])
    place.until(lambda: len(journal.entries) == 2)

    assert [entry.attempt for entry in journal.entries] == [1, 2]


def test_results_and_canvas_of_converted_tasks(place: Place) -> None:
    """Only our own messages ignore the result: `.delay().get()`, chain and chord have theirs."""
    results = place.dispatcher.broker.app
    double = results.signature("celery_tests.double")
    total = results.signature("celery_tests.total")

    plain = results.send_task("celery_tests.double", args=[4]).get(MAX_WAIT)
    chained = chain(double.clone([1]), double.clone()).delay().get(MAX_WAIT)
    in_chord = chord([double.clone([n]) for n in (1, 2)], total).delay().get(MAX_WAIT)
    unwanted = results.send_task("celery_tests.unwanted").get(MAX_WAIT)
    journal = place.journal()
    retried = results.send_task("celery_tests.converted_async", args=[journal.path]).get(MAX_WAIT)

    assert (plain, chained, in_chord, unwanted) == (8, 4, 6, None)
    assert retried == "attempt 2"


def test_an_odd_end_of_a_run_is_an_outcome(place: Place) -> None:
    """C9: a `BaseException` of a library's own is tried again and dead-lettered, never dropped."""
    journal = place.journal()

    response = work.odd.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    assert len(journal.entries) >= 2


def test_a_swallowed_time_limit_is_no_success(place: Place) -> None:
    """A task that catches the interruption at its time limit has failed all the same."""
    journal = place.journal()

    response = work.swallow.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: dead_letters(place.letters).get(response.request_id) is not None)

    assert journal.texts == ["began"]


def test_async_runs_of_a_process_share_one_loop(place: Place) -> None:
    """A client that a module keeps works in the second run as in the first."""
    journal = place.journal()

    for _ in range(3):
        work.loop.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: len(journal.texts) == 3)

    by_process = {(entry.pid, entry.text) for entry in journal.entries}
    assert len(by_process) == len({entry.pid for entry in journal.entries})


def test_each_run_has_a_context_of_its_own(place: Place) -> None:
    """A run does not see what the one before left in the context."""
    journal = place.journal()

    for _ in range(3):
        work.leave.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: len(journal.texts) == 3)

    assert journal.texts == ["nothing"] * 3


def test_headers_survive_a_retry(place: Place) -> None:
    """A caller's headers, trace context among them, are on every attempt's message."""
    journal = place.journal()
    given = {"traceparent": "00-1-2-01"}

    work.traced.options(dispatcher=place.dispatcher, headers=given).dispatch(journal.path)
    place.until(lambda: len(journal.texts) == 2)

    assert [json.loads(text) for text in journal.texts] == [["00-1-2-01", given]] * 2


def test_the_native_tools_remote_control_works(place: Place) -> None:
    """`celery inspect` gets an answer to each of its questions."""
    control = place.dispatcher.broker.app.control
    name = f"dispatchers-{place.workers[-1].pid}@{socket.gethostname()}"
    # A worker that just began hears nothing yet: what is asked then gets no answer.
    place.until(lambda: bool(control.ping([name], timeout=1, limit=1)))
    # One worker answers: without the limit each question waits for more.
    inspect = control.inspect([name], timeout=10, limit=1)
    questions = ("stats", "active", "scheduled", "reserved", "registered", "active_queues")

    answers = [getattr(inspect, name)() for name in (*questions, "conf", "report", "ping")]

    assert all(answers), dict(zip(questions, answers, strict=False))
    assert place.queue in str(answers[5])


def test_waiting_work_is_not_in_the_way_of_due_work(place: Place) -> None:
    """C6: 300 delayed messages in front cost what is due nothing."""
    journal = place.journal()
    later = work.note.options(dispatcher=place.dispatcher, delay=timedelta(hours=1)).batch()
    for _ in range(300):
        later.add(journal.path, "later")
    later.dispatch().raise_for_error()

    work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "now")
    started = time.monotonic()
    place.until(lambda: journal.texts == ["now"])

    assert time.monotonic() - started < 10  # 110 s with the delayed ones in a worker's memory


def test_a_worker_stops_when_it_is_told_to(place: Place) -> None:
    """SIGTERM: what runs is finished, and the worker ends with 0."""
    journal = place.journal()
    worker = place.workers[-1]
    work.slow.options(dispatcher=place.dispatcher).dispatch(journal.path, 1.0)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()

    assert worker.wait(MAX_WAIT) == 0
    assert journal.texts == ["began", "ended"]
    place.start()


def test_a_run_is_told_that_the_worker_stops(place: Place) -> None:
    """C8: also in a process of Celery's pool; what it gives back is no attempt."""
    journal = place.journal()
    worker = place.workers[-1]
    work.patient.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()
    code = worker.wait(MAX_WAIT)
    stopped = journal.texts
    worker = place.start()
    place.until(lambda: len(journal.texts) == 3)
    worker.terminate()
    worker.wait(MAX_WAIT)
    place.empty()  # given back once more: it would hold up the worker of the next test

    assert code == 0
    assert stopped == ["began", "stops"]
    assert {entry.attempt for entry in journal.entries} == {1}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_whole_group_cuts_no_run(place: Place, number: int) -> None:
    """A supervisor signals every process of the group: what runs is finished, once."""
    journal = place.journal()
    worker = place.workers[-1] if place.workers[-1].poll() is None else place.start()
    work.slow.options(dispatcher=place.dispatcher).dispatch(journal.path, 2.0)
    place.until(lambda: "began" in journal.texts)

    os.killpg(worker.pid, number)

    assert worker.wait(MAX_WAIT) == 0
    assert journal.texts == ["began", "ended"]
    place.start()


def _unread(process: int) -> int:
    """Count the bytes that wait in the pipes of a process."""
    found = 0
    for entry in Path(f"/proc/{process}/fd").iterdir():
        if not str(entry.readlink()).startswith("pipe:"):
            continue
        pipe = os.open(entry, os.O_RDONLY | os.O_NONBLOCK)
        size = array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, size)
        os.close(pipe)
        found += size[0]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_stop_while_a_run_begins_repeats_nothing(place: Place) -> None:
    """C9: what a process of the pool was given before the stop is run once, and acknowledged."""
    place.kill()
    journal = place.journal()
    worker = place.start()
    note = work.note.options(dispatcher=place.dispatcher)
    note.dispatch(journal.path, "up")
    place.until(lambda: journal.texts == ["up"])
    child = journal.entries[0].pid
    # A process that is not free yet would not be given the next message.
    name = f"dispatchers-{worker.pid}@{socket.gethostname()}"
    control = place.dispatcher.broker.app.control
    inspect = control.inspect([name], timeout=MAX_WAIT, limit=1)
    place.until(lambda: inspect.active() == {name: []})

    os.kill(child, signal.SIGSTOP)
    before = _unread(child)
    note.dispatch(journal.path, "late")
    place.until(lambda: _unread(child) > before)
    given = _unread(child)
    worker.terminate()
    place.until(lambda: _unread(child) > given)  # the pool is closed: it was told to end
    os.kill(child, signal.SIGCONT)
    code = worker.wait(MAX_WAIT)
    drained = place.start("--drain").wait(MAX_WAIT)

    assert (code, drained, journal.texts) == (0, 0, ["up", "late"])
    place.start()


def test_a_run_beyond_the_grace_goes_back(place: Place) -> None:
    """C9: a worker ends soon after its grace, and another one gets the work."""
    place.kill()
    journal = place.journal()
    worker = place.start("--grace", "1s")
    work.patient_once.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()
    code = worker.wait(20)
    place.start()
    place.until(lambda: "ended" in journal.texts)

    assert (code, journal.texts) == (1, ["began", "began", "ended"])
    assert {(entry.attempt, entry.deliveries) for entry in journal.entries} == {(1, 1)}


def test_what_the_project_logs_is_left_alone(place: Place) -> None:
    """A finished run is one line in the format of the command line, and prints are seen."""
    place.kill()
    place.start()
    journal = place.journal()

    response = work.printing.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: "printed by a task" in place.log())
    place.until(lambda: response.request_id in place.log())

    lines = place.log().splitlines()
    assert "printed by a task" in lines
    assert any(f"INFO run of {work.printing.name} succeeded" in line for line in lines)


def test_exceptions_that_celery_acts_on_are_failures_like_others(place: Place) -> None:
    """C9: none ends the worker, or has work run again that is a dead letter."""
    place.kill()
    journal = place.journal()
    responses = [
        work.ends.options(dispatcher=place.dispatcher).dispatch(journal.path, how)
        for how in work.ENDS
    ]

    drained = place.start("--drain")
    ended = drained.wait(MAX_WAIT)

    kept = dead_letters(place.letters)
    assert ended == 0, place.log()[-4000:]
    assert all(kept.get(response.request_id) for response in responses)
    assert sorted(journal.texts) == sorted(work.ENDS)


def test_draining_ends_when_there_is_nothing_left(place: Place) -> None:
    """`dispatchers worker --drain` ends by itself."""
    place.kill()
    journal = place.journal()
    for number in range(5):
        work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, str(number))

    drained = place.start("--drain")

    assert drained.wait(MAX_WAIT) == 0
    assert sorted(journal.texts) == [str(number) for number in range(5)]
