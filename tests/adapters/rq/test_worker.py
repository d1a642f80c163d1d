"""`dispatchers worker` with RQ's own workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import pytest
from dispatchers_rq import RQDispatcher, native
from dispatchers_rq._worker import refuse_unknown
from redis.exceptions import ConnectionError as RedisConnectionError

from dispatchers import ConfigurationError, WorkerOptions, override

from .harness import TIMEOUT, Place, forget, work

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="RQ's workers fork")


@pytest.fixture(scope="module")
def place(shared_redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(shared_redis, tmp_path_factory.mktemp("rq"))
    found.start()
    yield found
    found.close()


def test_work_runs_in_rqs_worker(place: Place) -> None:
    """A task runs under its own name, and nothing of its arguments is shown by the worker."""
    journal = place.journal()

    response = work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "secret-text")
    place.until(lambda: bool(journal.entries))

    assert response.status == "accepted"
    assert response.confirmed
    assert journal.entries[0].request_id == response.request_id
    assert journal.entries[0].pid not in (os.getpid(), place.workers[0].pid)
    assert "secret-text" not in place.log()


def test_failing_work_is_tried_again_and_dead_lettered(place: Place) -> None:
    """C9: attempts are counted, and the last failure ends in the configured store."""
    journal = place.journal()

    response = work.fail.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: place.letters.get(response.request_id) is not None)

    letter = place.letters.get(response.request_id)
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
    place.until(lambda: place.letters.get(response.request_id) is not None)

    letter = place.letters.get(response.request_id)
    assert journal.texts == ["began"] * 3
    assert letter is not None
    assert letter.reason == "too_many_deliveries"


def test_a_time_limit_interrupts_a_run(place: Place) -> None:
    """A run beyond its time limit is interrupted, and failed."""
    journal = place.journal()

    response = work.limited.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: place.letters.get(response.request_id) is not None)

    assert journal.texts == ["began"]


def test_an_unknown_task_is_handed_back_not_dropped(place: Place) -> None:
    """C11: RQ fails what it cannot import; ours comes back."""
    journal = place.journal()
    request = work.note.request(journal.path, "later").replace(task="celery_tests.unheard_of")

    response = place.dispatcher.dispatch(request).raise_for_error()
    place.until(lambda: "unheard_of" in place.log())
    followed = work.note.options(dispatcher=place.dispatcher).dispatch(journal.path, "after")
    place.until(lambda: "after" in journal.texts)

    assert followed.ok
    assert place.letters.get(response.request_id) is None


def test_rqs_own_jobs_run_as_they_are(place: Place) -> None:
    """A function by its import path, natively shaped; a failing one ends where RQ puts it."""
    path = place.folder / f"{uuid4().hex}.txt"
    plain = native("rq_work.plain", dispatcher="ours")

    nowhere = plain.dispatch(str(path), "nowhere")
    with override(ours=place.dispatcher):
        good = plain.dispatch(str(path), text="good").raise_for_error()
        bad = plain.dispatch(str(path), text="fail").raise_for_error()
        killed = plain.dispatch(str(path), text="die").raise_for_error()
    place.until(lambda: place.status(good.task_id) == "finished")
    place.until(lambda: place.status(bad.task_id) == "failed")
    place.until(lambda: place.status(killed.task_id) == "failed")

    assert not nowhere
    assert sorted(path.read_text().split()) == ["die", "fail", "good"]


def test_a_worker_stops_when_it_is_told_to(place: Place) -> None:
    """SIGTERM: what runs is finished, and the worker ends with 0."""
    journal = place.journal()
    worker = place.workers[-1]
    work.slow.options(dispatcher=place.dispatcher).dispatch(journal.path, 1.0)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()

    assert worker.wait(TIMEOUT) == 0
    assert journal.texts == ["began", "ended"]
    place.start()


def test_a_run_is_told_that_the_worker_stops(place: Place) -> None:
    """C8: also in a process of its own; work that it gives back is not an attempt."""
    journal = place.journal()
    worker = place.workers[-1]
    work.patient.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.until(lambda: "began" in journal.texts)

    worker.terminate()
    code = worker.wait(TIMEOUT)
    stopped = journal.texts
    worker = place.start()
    place.until(lambda: len(journal.texts) == 3)
    worker.terminate()
    worker.wait(TIMEOUT)

    assert code == 0
    assert stopped == ["began", "stops"]
    assert {entry.attempt for entry in journal.entries} == {1}


@pytest.fixture
def fresh(shared_redis: str, tmp_path: Path) -> Iterator[Place]:
    """A queue with no worker yet."""
    found = Place(shared_redis, tmp_path)
    yield found
    found.close()


def test_draining_ends_when_there_is_nothing_left(fresh: Place) -> None:
    """`dispatchers worker --drain` ends by itself."""
    journal = fresh.journal()
    for number in range(5):
        work.note.options(dispatcher=fresh.dispatcher).dispatch(journal.path, str(number))

    drained = fresh.start("--drain")

    assert drained.wait(TIMEOUT) == 0, fresh.log()
    assert sorted(journal.texts) == [str(number) for number in range(5)]


def test_a_worker_that_is_killed_loses_nothing(fresh: Place) -> None:
    """C9: `kill -9` of the worker in mid-run: another one has the work when the lease is over.

    The process that ran the job is killed as well, which is not in the worker's group.
    """
    journal = fresh.journal()
    fresh.start()
    work.slow.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 3.0)
    fresh.until(lambda: "began" in journal.texts)

    fresh.kill()
    os.kill(journal.entries[0].pid, signal.SIGKILL)
    fresh.start()
    fresh.until(lambda: "ended" in journal.texts)

    assert journal.texts == ["began", "began", "ended"]
    assert [entry.deliveries for entry in journal.entries] == [1, 2, 2]


def test_work_of_a_live_process_is_not_given_away(fresh: Place) -> None:
    """C10: a run that outlives its worker renews its lease itself, and is not run twice."""
    journal = fresh.journal()
    fresh.start()
    response = work.slow.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 6.0)
    fresh.until(lambda: "began" in journal.texts)

    fresh.kill()
    fresh.start()
    fresh.until(lambda: fresh.status(response.task_id) == "finished")

    assert journal.texts == ["began", "ended"]


def test_what_outlasts_the_grace_goes_back(fresh: Place) -> None:
    """SIGTERM and no time: the run is ended, and its work is there for the next worker at once."""
    journal = fresh.journal()
    worker = fresh.start("--grace", "0s")
    response = work.slow.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 60.0)
    fresh.until(lambda: "began" in journal.texts)

    worker.terminate()

    assert worker.wait(TIMEOUT) == 1, fresh.log()
    assert fresh.status(response.task_id) == "queued"


def test_a_simple_worker_runs_in_its_own_process(fresh: Place) -> None:
    """`horses = false`: no process for each job; a worker that is killed is replaced."""
    journal = fresh.journal()
    config = fresh.folder / "dispatchers.toml"
    config.write_text(config.read_text() + "horses = false\n")
    fresh.start()
    for _ in range(2):
        work.note.options(dispatcher=fresh.dispatcher).dispatch(journal.path, "text")
    fresh.until(lambda: len(journal.entries) == 2)
    work.die.options(dispatcher=fresh.dispatcher).dispatch(journal.path, 1)
    fresh.until(lambda: "ended" in journal.texts)

    assert len({entry.pid for entry in journal.entries[:2]}) == 1
    assert [entry.deliveries for entry in journal.entries[2:]] == [1, 2, 2]


def test_several_queues_are_served_in_their_order(fresh: Place) -> None:
    """`--queues a,b`: what is in the first is taken first."""
    journal = fresh.journal()
    low = f"{fresh.queue}-low"
    both = RQDispatcher(url=fresh.url, queues=[fresh.queue, low])
    for number in range(3):
        for queue in (low, fresh.queue):
            bound = work.note.options(dispatcher=both, queue=queue)
            bound.dispatch(journal.path, f"{queue == low}{number}").raise_for_error()

    drained = fresh.start("--drain", "--queues", f"{fresh.queue},{low}")

    assert drained.wait(TIMEOUT) == 0, fresh.log()
    forget(both.broker.client, low)
    both.close()
    assert journal.texts == ["False0", "False1", "False2", "True0", "True1", "True2"]


@pytest.mark.parametrize("horses", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_cuts_no_run(
    shared_redis: str, tmp_path: Path, horses: bool, number: signal.Signals
) -> None:
    """C9: systemd and terminals signal all processes at once: what runs is finished, exit 0."""
    place = Place(shared_redis, tmp_path, horses=horses)
    journal = place.journal()
    worker = place.start()
    work.slow.options(dispatcher=place.dispatcher).dispatch(journal.path, 1.5)
    place.until(lambda: "began" in journal.texts)

    for process in {worker.pid, *descendants(worker.pid)}:
        os.kill(process, number)
    code = worker.wait(TIMEOUT)
    place.close()

    assert code == 0, place.log()
    assert journal.texts == ["began", "ended"]


def descendants(pid: int) -> set[int]:
    """The processes below one, on Linux."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    children = {int(each) for each in found}
    return children.union(*map(descendants, children))


@pytest.mark.parametrize("horses", [True, False])
def test_a_tasks_own_processes_behave_as_usual(
    shared_redis: str, tmp_path: Path, horses: bool
) -> None:
    """A pool ends, a child can be terminated, and a fork that returns does not settle the run."""
    place = Place(shared_redis, tmp_path, horses=horses)
    journal, forked = place.journal(), place.journal()
    work.pools.options(dispatcher=place.dispatcher).dispatch(journal.path)
    response = work.forks.options(dispatcher=place.dispatcher).dispatch(forked.path)
    drained = place.start("--drain")

    code = drained.wait(TIMEOUT)
    log, status = place.log(), place.status(response.task_id)
    place.close()

    assert code == 0, log
    assert journal.texts == ["3 -15"]
    assert forked.texts == ["ended"]
    assert status == "finished"
    assert "another is started" not in log


@pytest.mark.parametrize("horses", [True, False])
def test_printed_text_is_in_the_log_once(
    shared_redis: str, tmp_path: Path, horses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ ends a job's process without writing what is in its buffer."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    place = Place(shared_redis, tmp_path, horses=horses)
    for text in ("first-text", "second-text"):
        work.prints.options(dispatcher=place.dispatcher).dispatch(text)
    place.start("--drain").wait(TIMEOUT)
    log = place.log()
    place.close()

    assert (log.count("first-text"), log.count("second-text")) == (1, 1)


def test_a_killed_run_takes_its_processes_along(fresh: Place) -> None:
    """C8: they are in its group, and end with it."""
    journal = fresh.journal()
    fresh.start()

    response = work.orphans.options(dispatcher=fresh.dispatcher).dispatch(journal.path)
    fresh.until(lambda: fresh.letters.get(response.request_id) is not None)

    fresh.until(lambda: not any(is_alive(int(pid)) for pid in journal.texts))
    assert len(journal.texts) == 3


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_runs_in_one_process_share_a_loop_and_no_context(shared_redis: str, tmp_path: Path) -> None:
    """With `horses = false`: a client of a module is used again, a context variable is not."""
    place = Place(shared_redis, tmp_path, horses=False)
    context, loops = place.journal(), place.journal()
    for _ in range(3):
        work.contextual.options(dispatcher=place.dispatcher).dispatch(context.path)
        work.looped.options(dispatcher=place.dispatcher).dispatch(loops.path)

    code = place.start("--drain").wait(TIMEOUT)
    place.close()

    assert code == 0, place.log()
    assert context.texts == ["clean"] * 3
    assert loops.texts == ["1"] * 3


@pytest.mark.parametrize("horses", [True, False])
def test_a_swallowed_time_limit_is_a_failure(
    shared_redis: str, tmp_path: Path, horses: bool
) -> None:
    """C10: `except Exception` around it does not make a success of a run that was cut."""
    place = Place(shared_redis, tmp_path, horses=horses)
    journal = place.journal()
    response = work.swallows.options(dispatcher=place.dispatcher).dispatch(journal.path)
    place.start("--drain").wait(TIMEOUT)

    letter = place.letters.get(response.request_id)
    place.close()

    assert journal.texts == ["swallowed"]
    assert letter is not None


@pytest.mark.parametrize("horses", [True, False])
def test_an_odd_end_of_a_run_is_an_outcome(shared_redis: str, tmp_path: Path, horses: bool) -> None:
    """C9: an exception that is no `Exception` loses nothing: it ends as a dead letter."""
    place = Place(shared_redis, tmp_path, horses=horses)
    response = work.odd.options(dispatcher=place.dispatcher).dispatch(place.journal().path)
    place.start()

    place.until(lambda: place.letters.get(response.request_id) is not None)
    letter = place.letters.get(response.request_id)
    place.close()

    assert letter is not None
    assert letter.reason == "too_many_deliveries"


def test_a_system_without_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: words in place of an AttributeError, before anything is started."""
    monkeypatch.delattr(os, "fork")
    dispatcher = RQDispatcher(url="redis://localhost:1/0")

    with pytest.raises(ConfigurationError, match="WSL"):
        dispatcher._worker(WorkerOptions())


def test_a_worker_waits_for_a_redis_that_starts_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As RQ's workers do that lose it, in place of a traceback; told to stop, it ends."""
    monkeypatch.setattr("dispatchers_rq._worker.RESTART_DELAY", 0.0)
    dispatcher = RQDispatcher(url="redis://localhost:1/0")
    worker: Any = dispatcher._worker(WorkerOptions())
    asked = Mock(side_effect=[RedisConnectionError, TimeoutError, ["later"], RedisConnectionError])
    monkeypatch.setattr(dispatcher.broker, "queues", asked)

    waited = worker._queues()
    worker.stop()

    assert waited == ["later"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "doctor --contact" in caplog.text
    assert worker.run() == 0


def test_an_rq_that_works_otherwise_is_refused() -> None:
    """A worker that runs nothing must not take work, which would count as deliveries."""
    refuse_unknown("2.12.0")

    with pytest.raises(ConfigurationError, match="pip install 'rq"):
        refuse_unknown("3.0.0")
