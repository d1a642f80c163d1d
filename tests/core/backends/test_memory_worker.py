"""The worker of `memory`: threads that claim, run and settle until they are stopped."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta

import pytest

from dispatchers import Backoff, Retry, WorkerOptions, current_run, task
from dispatchers.backends.memory import MemoryDispatcher

from .conftest import GENEROUS, until


@pytest.fixture
def memory():
    return MemoryDispatcher()


@pytest.fixture
def working(gate):
    """Runs a worker on a thread, and stops it at the end of the test."""
    running = []

    def start(dispatcher, **options):
        worker = dispatcher._worker(WorkerOptions(**options))
        codes = []
        thread = threading.Thread(target=lambda: codes.append(worker.run()))
        thread.start()

        def stop():
            worker.stop()
            thread.join(GENEROUS)
            return codes[0]

        running.append((worker, thread))
        return stop

    yield start

    gate.open()
    for worker, thread in running:
        worker.stop()
        thread.join(GENEROUS)


@pytest.fixture
def note(seen):
    """A task that notes its argument."""

    @task(name="worker.note")
    def note(x: int) -> None:
        seen(x)

    return note


def test_runs_what_waits_and_what_comes(memory, working, note, seen):
    """Work from before and after the start is run; a stop is graceful."""
    work = note.options(dispatcher=memory)
    work.dispatch(x=1)
    stop = working(memory)
    seen.wait(1)
    work.dispatch(x=2)
    seen.wait(2)

    assert stop() == 0
    assert seen.items == [1, 2]


def test_runs_several_at_once(memory, working, gate, seen):
    """As many runs at once as `concurrency` says."""

    @task(name="worker.block")
    def block() -> None:
        gate()

    for _ in range(3):
        block.options(dispatcher=memory).dispatch()
    working(memory, concurrency=3)

    for _ in range(3):
        gate.arrived()


def test_serves_the_queues_it_was_given(memory, working, note, seen):
    """Work of other queues is left alone."""
    note.options(dispatcher=memory, queue="other").dispatch(x=1)
    note.options(dispatcher=memory, queue="mine").dispatch(x=2)
    stop = working(memory, queues=("mine",))
    seen.wait(1)
    stop()

    assert seen.items == [2]
    assert len(memory.waiting) == 1


def test_drain_ends_when_nothing_waits(memory, note, seen):
    """With `drain` the worker ends by itself, retries included."""

    @task(name="worker.again", max_attempts=2, backoff=Backoff(initial=0.02))
    def again() -> None:
        seen(current_run().attempt)
        raise Retry

    again.options(dispatcher=memory).dispatch()
    code = memory._worker(WorkerOptions(drain=True, concurrency=2)).run()

    assert code == 0
    assert seen.items == [1, 2]
    assert len(memory.dead) == 1


def test_drain_is_about_the_queues_it_serves(memory, note, seen):
    """Work that it would never run does not keep it from ending."""
    note.options(dispatcher=memory, queue="other").dispatch(x=1)
    note.options(dispatcher=memory, queue="mine").dispatch(x=2)

    code = memory._worker(WorkerOptions(drain=True, queues=("mine",))).run()

    assert code == 0
    assert seen.items == [2]


def test_time_put_forward_wakes_it(memory, working, note, seen):
    """An idle worker notices that the clock was put forward."""
    note.options(dispatcher=memory, delay=timedelta(hours=1)).dispatch(x=1)
    working(memory)

    memory.advance(timedelta(hours=1))

    assert seen.wait(1) == [1]


def test_a_task_that_exits_ends_no_worker(working, note, seen, log):
    """C10: a task that raises `SystemExit` is delivered again, then dead; the worker goes on."""
    memory = MemoryDispatcher(max_deliveries=2)

    @task(name="worker.exits")
    def exits() -> None:
        seen("exits")
        raise SystemExit

    exits.options(dispatcher=memory).dispatch()
    note.options(dispatcher=memory, priority=-1).dispatch(x=1)
    working(memory)

    assert seen.wait(3) == ["exits", "exits", 1]
    assert [letter.reason for letter in memory.dead] == ["too_many_deliveries"]


def test_handlers_see_the_stop_and_hand_back(memory, working, gate, seen):
    """C8: `should_stop` is true once the worker stops; giving up then is no attempt."""

    @task(name="worker.polite")
    def polite() -> None:
        gate()
        until(lambda: current_run().should_stop)
        raise Retry

    polite.options(dispatcher=memory).dispatch()
    stop = working(memory)
    gate.arrived()
    gate.open()
    code = stop()

    assert code == 0
    assert (memory.claim().attempt, memory.waiting) == (1, ())


def test_handlers_beyond_the_grace_are_told_of(memory, working, gate):
    """A handler that does not end within the grace is the exit code's business."""

    @task(name="worker.stuck")
    def stuck() -> None:
        gate()

    stuck.options(dispatcher=memory).dispatch()
    stop = working(memory, grace=0.01)
    gate.arrived()

    assert stop() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it(memory, number):
    """SIGTERM and SIGINT end the worker gracefully, and their handlers are put back."""
    before = signal.getsignal(number)

    @task(name="worker.signal")
    def kill() -> None:
        signal.raise_signal(number)

    kill.options(dispatcher=memory).dispatch()
    code = memory._worker(WorkerOptions()).run()

    assert code == 0
    assert signal.getsignal(number) is before
