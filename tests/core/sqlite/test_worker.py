"""The worker: a supervisor that holds the jobs, and children that run them."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatchers import DispatchRequest, WorkerOptions, override
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.sqlite import StoreFullError, _claim
from dispatchers.sqlite._records import Finish
from dispatchers.sqlite._worker import child_handle
from dispatchers.sqlite._worker import worker as worker_module
from dispatchers.sqlite._worker.process_pool import ProcessPool
from dispatchers.sqlite._worker.worker import SQLiteWorker

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def tasks(_findable: None) -> Iterator[ModuleType]:
    """The tasks' module, under the name by which a child imports it."""
    spec = importlib.util.spec_from_file_location("worker_tasks", HERE / "worker_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["worker_tasks"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["worker_tasks"]


@pytest.fixture
def notes(tmp_path: Path) -> str:
    return str(tmp_path / "notes")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Callable[..., SQLiteDispatcher]]:
    made: list[SQLiteDispatcher] = []

    def make(**options: Any) -> SQLiteDispatcher:
        made.append(SQLiteDispatcher(path=tmp_path / "queue.db", **options))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.close()


def put(dispatcher: SQLiteDispatcher, *requests: DispatchRequest) -> None:
    dispatcher.dispatch_many(requests).raise_for_error()


def worker(dispatcher: SQLiteDispatcher, **options: Any) -> SQLiteWorker:
    options = {"modules": ("worker_tasks",), "drain": True, "grace": 20.0} | options
    made = dispatcher._worker(WorkerOptions(**options))
    assert isinstance(made, SQLiteWorker)
    return made


@contextmanager
def running(work: SQLiteWorker) -> Generator[list[int]]:
    """A worker on a thread of its own; its exit code is in the list after the block."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(work.run()))
    thread.start()
    try:
        yield codes
    finally:
        work.stop()
        thread.join(60)
    assert not thread.is_alive()


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# What is run, and what becomes of it.


def test_everything_that_waits_is_run_once(queue: Any, tasks: Any, notes: str) -> None:
    """Each job is run once, by one of several children, and settled as done."""
    dispatcher = queue()
    put(dispatcher, *[tasks.quick.request(path=notes, word=f"{n}") for n in range(300)])

    code = worker(dispatcher, concurrency=2).run()

    assert code == 0
    assert sorted(map(int, tasks.noted(notes))) == list(range(300))
    assert dispatcher._store.counts().done == 300


def test_what_a_handler_prints_does_not_disturb(
    queue: Any, tasks: Any, notes: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output of a handler is the worker's own; its input is empty."""
    dispatcher = queue()
    put(dispatcher, tasks.prints.request(path=notes))

    code = worker(dispatcher).run()

    out, err = capfd.readouterr()
    assert code == 0
    assert tasks.noted(notes) == ["read ''"]
    assert (out.count("x"), out.count("y"), err.count("z")) == (100_000, 100_000, 100_000)
    assert "x" * 100 not in err


def test_what_a_handler_prints_without_standard_output_is_nowhere(
    queue: Any, tasks: Any, notes: str, tmp_path: Path
) -> None:
    """A file of the worker's that has the number of standard output by chance is not written to."""
    dispatcher = queue()
    put(dispatcher, tasks.prints.request(path=notes))

    with started(dispatcher, preexec_fn=lambda: os.close(1)) as process:
        wait_until(lambda: dispatcher._store.counts().done == 1)
        process.terminate()
        code = process.wait(30)

    assert code == 0
    assert tasks.noted(notes) == ["read ''"]
    assert not [file for file in tmp_path.rglob("*") if b"yyyyy" in _content(file)]


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def test_what_a_handler_prints_is_seen_at_once_and_not_lost(
    queue: Any, tasks: Any, tmp_path: Path
) -> None:
    """A line is there while its run goes on; half a line is there when the run was killed."""
    dispatcher = queue()
    put(dispatcher, tasks.talks.request(seconds=600.0))
    log = tmp_path / "log"

    with log.open("wb") as file, started(dispatcher, stdout=file, stderr=file):
        wait_until(lambda: "begin\n" in log.read_text())
        early = log.read_text()
        wait_until(lambda: dispatcher._store.counts().dead == 1)
        late = log.read_text()

    assert "killed at its time limit" not in early
    assert "half a line" in late


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("raise", 1), ("exit", 3)])
def test_a_child_of_a_handler_does_not_speak_for_the_worker(
    queue: Any, tasks: Any, notes: str, how: str, code: int
) -> None:
    """A process that a handler forks ends as a plain program does, and takes no job."""
    dispatcher = queue()
    put(dispatcher, tasks.forks.request(path=notes, how=how))
    put(dispatcher, *[tasks.quick.request(path=notes, word=f"{n}") for n in range(20)])

    assert worker(dispatcher).run() == 0

    assert tasks.noted(notes)[:2] == ["child", f"parent {code}"]
    assert tasks.noted(notes)[2:] == [str(n) for n in range(20)]
    assert dispatcher._store.counts().done == 21


def test_the_processes_of_a_task_can_be_ended(queue: Any, tasks: Any, notes: str) -> None:
    """A pool that a task makes ends, and so does a program that it starts, by SIGTERM."""
    dispatcher = queue()
    put(dispatcher, tasks.pools.request(path=notes))

    assert worker(dispatcher).run() == 0

    assert tasks.noted(notes) == ["pooled 1 2", f"terminated {-signal.SIGTERM}"]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_the_processes_of_a_task_end_with_their_worker(
    queue: Any, tasks: Any, notes: str, *, killed: bool
) -> None:
    """What a task has left behind does not outlive a worker that ends, or is killed."""
    dispatcher = queue(lease=2.0)
    put(dispatcher, tasks.leaves.request(path=notes, seconds=0.0))

    with started(dispatcher) as process:
        tasks.wait_for(notes, "left")
        wait_until(lambda: dispatcher._store.counts().done == 1)
        process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
        process.wait(30)

    wait_until(lambda: _is_gone(int(tasks.noted(notes)[0].split()[1])))


def test_signals_to_all_processes_of_a_worker_cut_no_run(
    queue: Any, tasks: Any, notes: str
) -> None:
    """A supervisor that signals every process stops the worker as gracefully as one signal."""
    dispatcher = queue()
    put(dispatcher, tasks.waits.request(path=notes, word="go", count=1))

    with started(dispatcher) as process:
        tasks.wait_for(notes, "waiting")
        for pid in [*_children(process.pid), process.pid]:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        tasks.note(notes, "go")
        code = process.wait(30)

    assert code == 0
    assert tasks.noted(notes)[-1] == "waited"


def test_a_child_has_no_more_bytes_in_hand_than_it_may(
    queue: Any, tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envelopes of ten megabytes are not claimed two hundred at a time."""
    monkeypatch.setattr(child_handle, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(_claim, "_BYTES", 1_000_000)
    dispatcher = queue()
    put(dispatcher, *[tasks.large.request(text="x" * 400_000) for _ in range(20)])
    most = 0

    class Watched(ProcessPool):
        def _feed(self) -> None:
            nonlocal most
            super()._feed()
            held = sum(child.bytes for child in self._children)
            most = max(most, held + sum(len(job.body) for job, _ in self._waiting))

    monkeypatch.setattr(worker_module, "ProcessPool", Watched)
    assert worker(dispatcher).run() == 0

    assert dispatcher._store.counts().done == 20
    assert most < 4_000_000


def test_what_a_run_puts_into_the_file_is_claimed_after_it(
    queue: Any, tasks: Any, notes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that follows from work does not wait until the worker looks by itself."""
    for name in ("_POLL", "_SETTLE"):
        monkeypatch.setattr(worker_module, name, 3600.0)
    dispatcher = queue()
    put(dispatcher, tasks.follows.request(queue=dispatcher._store.path, path=notes))

    with running(work := worker(dispatcher, drain=False)) as codes:
        tasks.wait_for(notes, "followed")
        work.stop()

    assert codes == [0]
    assert dispatcher._store.counts().done == 2


def test_a_file_that_refuses_is_asked_again_after_a_pause(queue: Any, tasks: Any) -> None:
    """A full disk says so at once: what runs bring is not recorded again and again meanwhile."""
    dispatcher = queue()
    put(dispatcher, tasks.nothing.request())
    store = dispatcher._store
    owner = store.owners.register(timeout=1)
    [job] = store.exchange([], owner=owner, queues=None, limit=1, timeout=1).jobs
    asks, pool = worker(dispatcher), ProcessPool(b"", 1, None)
    pool.finished.append(Finish.done(job)._replace(effects=b"of a turn"))
    now = time.monotonic()

    assert asks._due(pool, now)
    asks._failed(pool, StoreFullError("the disk is full"))

    assert pool.brings
    assert not asks._due(pool, now)
    assert asks._due(pool, now + 60)
    pool.close(0.0)


def test_the_hooks_of_the_configuration_reach_the_processes(
    queue: Any, tasks: Any, notes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hooks = [...]` is imported where tasks run; killed runs and unknown tasks are told too."""
    code = (
        "from dispatchers import hooks\n"
        "@hooks.after_run\n"
        "def told(run, outcome):\n"
        f"    open({notes!r}, 'a').write(f'told {{run.task.name}} {{outcome.reason.value}}\\n')\n"
    )
    (tmp_path / "hooks_of_a_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    dispatcher = queue(skew_grace=0)
    put(dispatcher, tasks.nothing.request(), DispatchRequest(task="w.unknown"))
    put(dispatcher, tasks.talks.request(seconds=600.0))

    with override({"hooks": ["hooks_of_a_test"]}):
        worker(dispatcher).run()

    assert sorted(tasks.noted(notes)) == [
        "told w.nothing succeeded", "told w.talks exhausted", "told w.unknown unknown_task",
    ]  # fmt: skip


def test_a_failed_run_is_tried_again(queue: Any, tasks: Any, notes: str) -> None:
    """C10: each attempt is counted, with its deliveries from one again."""
    dispatcher = queue()
    put(dispatcher, tasks.flaky.request(path=notes))

    worker(dispatcher).run()

    assert tasks.noted(notes) == ["attempt 1 1", "attempt 2 1", "attempt 3 1"]
    assert dispatcher._store.counts().done == 1


def test_work_that_fails_for_good_is_a_dead_letter(queue: Any, tasks: Any, notes: str) -> None:
    """What has used up its attempts is kept, with what went wrong."""
    dispatcher = queue()
    request = tasks.fails.request(path=notes)
    put(dispatcher, request)

    worker(dispatcher).run()

    [letter] = dispatcher._dead_letters().list()
    assert (letter.id, letter.task, letter.reason) == (request.id, "w.fails", "exhausted")
    assert (letter.attempts, letter.deliveries) == (2, 1)
    assert letter.error is not None
    assert (letter.error.exception_type, letter.error.message) == ("OSError", "never")
    assert "worker_tasks.py" in letter.error.where


def test_discarded_work_is_done(queue: Any, tasks: Any, notes: str) -> None:
    """A handler that discards its work ends it without a dead letter."""
    dispatcher = queue()
    put(dispatcher, tasks.discards.request(path=notes))

    worker(dispatcher).run()

    counts = dispatcher._store.counts()
    assert (counts.done, counts.dead) == (1, 0)


def test_a_dead_letter_can_be_replayed(queue: Any, tasks: Any, notes: str) -> None:
    """A replayed letter runs again from its first attempt, as its envelope says now."""
    dispatcher = queue()
    put(dispatcher, tasks.fails.request(path=notes))
    worker(dispatcher).run()
    letters = dispatcher._dead_letters()
    [letter] = letters.list()
    mended = tasks.quick.request(path=notes, word="mended").replace(id=letter.id, queue="other")
    letters.edit(letter.id, _body(mended))

    replayed = letters.replay(letter.id)
    worker(dispatcher, queues=("other",)).run()

    assert replayed
    assert tasks.noted(notes)[-1] == "mended"
    assert letters.list() == []


def test_dead_letters_may_be_kept_elsewhere(
    queue: Any, tasks: Any, notes: str, tmp_path: Path
) -> None:
    """C9: with another store configured, the letter is there before the work is given up."""
    dispatcher = queue(dead_letters=f"sqlite:{tmp_path / 'dead.db'}")
    request = tasks.fails.request(path=notes)
    put(dispatcher, request)

    worker(dispatcher).run()

    [letter] = dispatcher._dead_letters().list()
    assert letter.id == request.id
    assert dispatcher._store.counts().dead == 0
    assert dispatcher.dispatch(request).status == "accepted"


def test_a_dead_letter_that_cannot_be_kept_brings_the_work_back(
    queue: Any, tasks: Any, notes: str, tmp_path: Path
) -> None:
    """C9: where the letter cannot be stored, the work is not given up."""
    dispatcher = queue(dead_letters=f"sqlite:{tmp_path / 'missing' / 'dead.db'}")
    put(dispatcher, tasks.fails.request(path=notes))

    with running(worker(dispatcher, drain=False)):
        wait_until(lambda: len(tasks.noted(notes)) == 2)
        wait_until(lambda: dispatcher._store.counts().delayed == 1)

    assert dispatcher._store.counts().dead == 0


def test_an_unknown_task_is_handed_back_and_not_counted(queue: Any) -> None:
    """C11: what this worker does not know waits for one that does."""
    dispatcher = queue()
    put(dispatcher, DispatchRequest(task="w.of_tomorrow"))

    with running(worker(dispatcher, drain=False)):
        wait_until(lambda: dispatcher._store.counts().delayed == 1)

    row = _row(dispatcher, "attempt, deliveries, state")
    assert row == (1, 0, 1)


@pytest.mark.parametrize("queues", [None, ["default", "other"]])
@pytest.mark.parametrize(
    ("task", "hours", "is_left"),
    [("w.flow/turn", 1, False), ("w.flow/turn", -1, True), ("w.quick", 1, True)],
)
def test_a_turn_counts_as_left_once_it_is_due(
    queue: Any, queues: list[str] | None, task: str, hours: int, is_left: bool
) -> None:
    """A worker that drains waits for delayed work, and not for the timers of executions."""
    dispatcher = queue()
    put(dispatcher, DispatchRequest(task=task, eta=datetime.now(UTC) + timedelta(hours=hours)))

    assert dispatcher._store.is_empty(queues, timeout=5) is not is_left


# Runs that do not come to an end.


def test_a_run_beyond_its_time_limit_is_killed(queue: Any, tasks: Any, notes: str) -> None:
    """A synchronous handler is stopped at its time limit, and that is a failed attempt."""
    dispatcher = queue()
    put(dispatcher, tasks.overruns.request(path=notes))

    worker(dispatcher).run()

    [letter] = dispatcher._dead_letters().list()
    assert tasks.noted(notes) == ["overrunning 1", "overrunning 2"]
    assert (letter.reason, letter.attempts) == ("exhausted", 2)
    assert letter.error is not None
    assert letter.error.kind == "timeout"


def test_an_async_run_is_cancelled_at_its_time_limit(queue: Any, tasks: Any, notes: str) -> None:
    """An async handler is cancelled in its process, which goes on."""
    dispatcher = queue()
    put(dispatcher, tasks.overruns_async.request(path=notes))

    worker(dispatcher).run()

    assert tasks.noted(notes) == ["overrunning", "cancelled"]
    assert dispatcher._store.counts().dead == 1


def test_what_a_handler_has_started_is_killed_with_it(queue: Any, tasks: Any, notes: str) -> None:
    """A killed run leaves no processes of its own behind."""
    dispatcher = queue()
    put(dispatcher, tasks.spawns.request(path=notes))

    worker(dispatcher).run()

    pid = int(tasks.noted(notes)[0].split()[1])
    wait_until(lambda: _is_gone(pid))


def test_a_task_that_kills_its_process_does_not_circle(queue: Any, tasks: Any, notes: str) -> None:
    """C10: beyond `max_deliveries` such work is dead; its neighbours are run and not counted."""
    dispatcher = queue(max_deliveries=2)
    put(dispatcher, tasks.kills.request(path=notes))
    put(dispatcher, *[tasks.counts.request(path=notes) for _ in range(20)])

    code = worker(dispatcher).run()

    noted = tasks.noted(notes)
    [letter] = dispatcher._dead_letters().list()
    assert code == 0
    assert [line for line in noted if line.startswith("killing")] == ["killing 1", "killing 2"]
    assert noted.count("neighbour 1") == 20
    assert letter.reason == "too_many_deliveries"


def test_a_task_that_exits_is_delivered_again(queue: Any, tasks: Any, notes: str) -> None:
    """C10: `SystemExit` is no outcome: the work is delivered once more, and that is counted."""
    dispatcher = queue()
    put(dispatcher, tasks.exits.request(path=notes))

    worker(dispatcher).run()

    assert tasks.noted(notes) == ["exiting 1", "exiting 2"]
    assert dispatcher._store.counts().done == 1


def test_a_long_run_holds_nobody_back(queue: Any, tasks: Any, notes: str) -> None:
    """Jobs behind a long run are given to another child: the long one waits for all of them."""
    dispatcher = queue()
    put(dispatcher, *[tasks.nothing.request() for _ in range(400)])
    put(dispatcher, tasks.waits.request(path=notes, word="quick", count=100))
    put(dispatcher, *[tasks.quick.request(path=notes, word="quick") for _ in range(100)])

    code = worker(dispatcher, concurrency=2).run()

    assert code == 0
    assert tasks.noted(notes)[-1] == "waited"


def test_jobs_that_no_child_can_begin_go_back_to_the_queue(
    queue: Any, tasks: Any, notes: str
) -> None:
    """A worker whose children are all at long runs does not sit on the work of others."""
    dispatcher = queue()
    put(dispatcher, *[tasks.nothing.request() for _ in range(400)])
    put(dispatcher, tasks.waits.request(path=notes, word="quick", count=50))
    put(dispatcher, *[tasks.quick.request(path=notes, word="quick") for _ in range(50)])

    with running(worker(dispatcher, drain=False)) as codes:
        tasks.wait_for(notes, "waiting")
        other = worker(dispatcher).run()

    assert (other, codes) == (0, [0])
    assert tasks.noted(notes).count("quick") == 50


def test_two_workers_share_a_queue(queue: Any, tasks: Any, notes: str) -> None:
    """Several workers on one file run each job once."""
    dispatcher = queue()
    put(dispatcher, *[tasks.quick.request(path=notes, word=f"{n}") for n in range(500)])

    with running(worker(dispatcher, drain=False)):
        worker(dispatcher).run()

    assert sorted(map(int, tasks.noted(notes))) == list(range(500))


# Starting and stopping.


def test_modules_that_cannot_be_imported_end_the_worker(
    queue: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker whose tasks cannot be imported says why, and runs nothing."""
    dispatcher = queue()

    code = worker(dispatcher, modules=("no_such_module",)).run()

    assert code == 1
    assert "No module named 'no_such_module'" in caplog.text


def test_a_worker_that_stops_lets_its_runs_finish(queue: Any, tasks: Any, notes: str) -> None:
    """A graceful stop takes nothing new, finishes what runs, and gives back the rest uncounted."""
    dispatcher = queue()
    put(dispatcher, tasks.waits.request(path=notes, word="go", count=1))
    put(dispatcher, *[tasks.quick.request(path=notes, word="late") for _ in range(5)])
    work = worker(dispatcher, drain=False)

    with running(work) as codes:
        tasks.wait_for(notes, "waiting")
        work.stop()
        wait_until(lambda: dispatcher._store.counts().ready == 5)
        tasks.note(notes, "go")

    assert codes == [0]
    assert tasks.noted(notes) == ["waiting", "go", "waited"]
    counts = dispatcher._store.counts()
    assert (counts.done, counts.ready, counts.running) == (1, 5, 0)
    assert _row(dispatcher, "max(deliveries)") == (0,)


def test_a_handler_learns_that_the_worker_stops(queue: Any, tasks: Any, notes: str) -> None:
    """`should_stop` turns true; a handler that gives up then has used no attempt."""
    dispatcher = queue()
    put(dispatcher, tasks.heeds.request(path=notes))
    work = worker(dispatcher, drain=False)

    with running(work) as codes:
        tasks.wait_for(notes, "heeding")

    assert codes == [0]
    assert tasks.noted(notes) == ["heeding 1", "heeded"]
    assert _row(dispatcher, "state, attempt, deliveries") == (0, 1, 0)


def test_a_handler_that_outlasts_the_grace_is_killed(queue: Any, tasks: Any, notes: str) -> None:
    """After the grace what still runs is killed and given back, and the exit code says so."""
    dispatcher = queue()
    put(dispatcher, tasks.sleeps.request(path=notes, seconds=600.0))
    work = worker(dispatcher, drain=False, grace=0.2)

    with running(work) as codes:
        tasks.wait_for(notes, "sleeping")

    assert codes == [1]
    assert _row(dispatcher, "state, attempt, deliveries") == (0, 1, 0)
    wait_until(lambda: _is_gone(int(tasks.noted(notes)[0].split()[1])))


def test_a_lost_lease_is_told_to_handlers_and_their_results_do_not_count(
    queue: Any, tasks: Any, notes: str
) -> None:
    """C9: a worker that lost its lease tells its handlers, and goes on as a new owner."""
    dispatcher = queue(lease=1.0)
    put(dispatcher, tasks.heeds.request(path=notes))
    work = worker(dispatcher, drain=False)

    with running(work):
        tasks.wait_for(notes, "heeding")
        owner = work._lease.owner
        dispatcher._store.owners._take_back([(owner, _beat_of(dispatcher, owner))], 5)
        tasks.wait_for(notes, "heeded")
        tasks.wait_for(notes, "heeding", 2)

    assert tasks.noted(notes)[:3] == ["heeding 1", "heeded", "heeding 2"]
    assert dispatcher._store.counts().done == 0


def test_a_lost_lease_starts_no_processes_for_idle_ones(queue: Any) -> None:
    """On a machine that is too slow to renew leases, each loss would add to the load."""
    dispatcher = queue(lease=30.0)
    work = worker(dispatcher, drain=False)

    with running(work):
        wait_until(lambda: work._pool is not None and work._pool._children)
        before = [child.pid for child in work._pool._children]
        for _ in range(3):
            owner = work._lease.owner
            dispatcher._store.owners._take_back([(owner, _beat_of(dispatcher, owner))], 5)
            work._lease.lost = True
            work._wake()
            wait_until(lambda lost=owner: work._lease.owner != lost)
        after = [child.pid for child in work._pool._children]

    assert before
    assert after == before


# Whole processes.


@contextmanager
def started(dispatcher: SQLiteDispatcher, **options: Any) -> Generator[subprocess.Popen[bytes]]:
    """A worker as a process of its own."""
    process = _begun(dispatcher, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _begun(
    dispatcher: SQLiteDispatcher, *, grace: float = 20.0, **popen: Any
) -> subprocess.Popen[bytes]:
    script = (
        "import sys, json\n"
        "from dispatchers import WorkerOptions\n"
        "from dispatchers.backends.sqlite import SQLiteDispatcher, SQLiteOptions\n"
        "path, options, work = sys.argv[1:]\n"
        "sys.path.insert(0, path)\n"
        "dispatcher = SQLiteDispatcher(SQLiteOptions.model_validate_json(options))\n"
        "sys.exit(dispatcher._worker(WorkerOptions.model_validate_json(work)).run())\n"
    )
    work = {"modules": ["worker_tasks"], "concurrency": 1, "grace": grace}
    arguments = [str(HERE), dispatcher.options.model_dump_json(), json.dumps(work)]
    return subprocess.Popen([sys.executable, "-W", "error", "-c", script, *arguments], **popen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_signals_stop_a_worker_gracefully(
    queue: Any, tasks: Any, notes: str, number: signal.Signals
) -> None:
    """SIGTERM and SIGINT end a worker when its runs have ended, with exit code 0."""
    dispatcher = queue()
    put(dispatcher, tasks.waits.request(path=notes, word="go", count=1))

    with started(dispatcher) as process:
        tasks.wait_for(notes, "waiting")
        process.send_signal(number)
        tasks.note(notes, "go")
        code = process.wait(30)

    assert code == 0
    assert tasks.noted(notes)[-1] == "waited"
    assert dispatcher._store.counts().done == 1


def test_a_second_signal_ends_a_worker_at_once(queue: Any, tasks: Any, notes: str) -> None:
    """Whoever does not want to wait for the grace signals twice; the work is given back."""
    dispatcher = queue()
    put(dispatcher, tasks.stubborn.request(path=notes))

    with started(dispatcher, grace=600.0) as process:
        tasks.wait_for(notes, "working")
        process.send_signal(signal.SIGTERM)
        tasks.wait_for(notes, "told")
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)

    assert code != 0
    assert dispatcher._store.counts().ready == 1
    wait_until(lambda: _is_gone(int(tasks.noted(notes)[0].split()[1])))


def test_the_children_of_a_killed_worker_end(queue: Any, tasks: Any, notes: str) -> None:
    """C9: children whose worker is gone end before their work can be run by others."""
    dispatcher = queue(lease=2.0)
    put(dispatcher, tasks.sleeps.request(path=notes, seconds=600.0))

    with started(dispatcher) as process:
        tasks.wait_for(notes, "sleeping")
        process.kill()
        process.wait()
    pid = int(tasks.noted(notes)[0].split()[1])

    wait_until(lambda: _is_gone(pid))
    assert tasks.noted(notes) == [f"sleeping {pid} 1"]


def test_the_work_of_a_killed_worker_is_done_by_another(queue: Any, tasks: Any, notes: str) -> None:
    """C9: when a worker dies, its jobs are run by another once its lease has run out."""
    dispatcher = queue(lease=1.0)
    put(dispatcher, tasks.sleeps.request(path=notes, seconds=1.5))
    with started(dispatcher) as process:
        tasks.wait_for(notes, "sleeping")
        process.kill()
        process.wait()

    worker(dispatcher).run()

    assert [line.split()[0] for line in tasks.noted(notes)] == ["sleeping", "sleeping", "slept"]
    assert tasks.noted(notes)[1].endswith(" 2")
    assert dispatcher._store.counts().done == 1


def test_a_worker_survives_the_death_of_its_children(queue: Any, tasks: Any, notes: str) -> None:
    """C9: children that are killed from outside are replaced, and their work is run again."""
    dispatcher = queue()
    put(dispatcher, tasks.sleeps.request(path=notes, seconds=0.5))

    with running(worker(dispatcher, drain=False)):
        tasks.wait_for(notes, "sleeping")
        os.kill(int(tasks.noted(notes)[0].split()[1]), signal.SIGKILL)
        tasks.wait_for(notes, "slept")
        wait_until(lambda: dispatcher._store.counts().done == 1)

    assert [line.split()[0] for line in tasks.noted(notes)] == ["sleeping", "sleeping", "slept"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds children in /proc")
@pytest.mark.slow
def test_workers_and_children_that_are_killed_lose_nothing(
    queue: Any, tasks: Any, notes: str
) -> None:
    """C9: kill -9 of workers and of their children at random moments: all work is done."""
    _kill_workers(queue(lease=1.0, max_deliveries=1000), tasks, notes, jobs=300, kills=8)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds children in /proc")
def test_workers_that_are_killed_for_minutes_lose_nothing(
    queue: Any, tasks: Any, notes: str
) -> None:
    """C9: the same many times over."""
    _kill_workers(queue(lease=1.0, max_deliveries=1000), tasks, notes, jobs=5000, kills=150)


def _kill_workers(dispatcher: Any, tasks: Any, notes: str, *, jobs: int, kills: int) -> None:
    requests = [tasks.stamps.request(path=notes, word=f"{number}") for number in range(jobs)]
    put(dispatcher, *requests)
    workers = [_begun(dispatcher) for _ in range(2)]
    try:
        for _ in range(kills):
            tasks.wait_for(notes, "", len(tasks.noted(notes)) + 1)
            time.sleep(random.uniform(0, 0.2))
            victim = random.choice(workers)
            if children := _children(victim.pid):
                target = random.choice([victim.pid, *children])
                os.kill(target, signal.SIGKILL)
                if target == victim.pid:
                    victim.wait()
            workers = [each if each.poll() is None else _begun(dispatcher) for each in workers]
        wait_until(lambda: dispatcher._store.counts().done == jobs, 120 + kills)
    finally:
        for each in workers:
            each.terminate()
        codes = [each.wait(60) for each in workers]

    assert set(codes) <= {0, -signal.SIGTERM}  # one that was only starting heeds no signals yet
    assert set(tasks.noted(notes)) == {f"{number}" for number in range(jobs)}
    assert dispatcher._store.counts().dead == 0


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def _body(request: DispatchRequest) -> bytes:
    from dispatchers._models.envelope import encode

    return encode(request)


def _row(dispatcher: SQLiteDispatcher, columns: str) -> Any:
    with dispatcher._store.database.transaction(timeout=5) as connection:
        return connection.execute(f"SELECT {columns} FROM jobs").fetchone()


def _beat_of(dispatcher: SQLiteDispatcher, owner: str) -> int:
    with dispatcher._store.database.transaction(timeout=5) as connection:
        sql = "UPDATE owners SET beat = beat WHERE owner = ? RETURNING beat"
        beat: int = connection.execute(sql, (owner,)).fetchone()[0]
    return beat


def _soon() -> float:
    return time.monotonic() + 5


def _is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"
