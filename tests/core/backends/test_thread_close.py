"""`thread`: closing from wherever, and what signal handlers and finalizers may do."""

from __future__ import annotations

import gc
import signal
import threading
from datetime import timedelta

import pytest

from dispatchers import DispatchStatus, ErrorCategory, Retry, current_run, task
from dispatchers.backends.thread import ThreadDispatcher

from ...timing import within  # noqa: TID252 - as for the other cases
from .conftest import GENEROUS, until


@pytest.fixture
def thread(made):
    """Makes thread dispatchers."""
    return lambda **options: made(ThreadDispatcher(**options))


@pytest.fixture
def note(seen):
    """A task that notes its argument."""

    @task(name="close.note")
    def note(x: int) -> None:
        seen(x)

    return note


@pytest.fixture
def block(gate):
    """A task that waits at the gate."""

    @task(name="close.block")
    def block(n: int = 0) -> None:
        gate()

    return block


def test_close_runs_what_is_due(thread, note, seen):
    """C8: closing drains: when it returns, what is due has run, and no thread is left."""
    dispatcher = thread(workers=2)
    for x in range(100):
        note.options(dispatcher=dispatcher).dispatch(x=x)

    left = dispatcher.close(GENEROUS)

    assert left == 0
    assert sorted(seen.items) == list(range(100))
    assert dispatcher._pool._threads == set()


def test_close_says_how_much_is_left(thread, note, block, gate, seen):
    """C8: what still runs or waits at the timeout is counted, and what waits is not run later."""
    dispatcher = thread(workers=1)
    block.options(dispatcher=dispatcher).dispatch()
    gate.arrived()
    for x in range(3):
        note.options(dispatcher=dispatcher).dispatch(x=x)

    with within(0.1):
        left = dispatcher.close(0.1)
    gate.open()
    until(lambda: not dispatcher._pool._threads)

    assert left == 4
    assert seen.items == []


def test_delayed_work_counts_as_left(thread, note):
    """C8: closing does not wait for what is not due."""
    dispatcher = thread()
    note.options(dispatcher=dispatcher, delay=timedelta(hours=1)).dispatch(x=1)

    left = dispatcher.close(GENEROUS)

    assert left == 1


def test_closed_refuses(thread, note):
    """C8: after closing the answer is `closed`, and closing again finds nothing."""
    dispatcher = thread()
    dispatcher.close(GENEROUS)

    response = note.options(dispatcher=dispatcher).dispatch(x=1)

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category is ErrorCategory.CLOSED
    assert dispatcher.close(GENEROUS) == 0


def test_handlers_see_that_they_should_stop(thread, gate, seen):
    """C8: `should_stop` is true once the dispatcher closes; giving up then counts as left."""

    @task(name="close.polite")
    def polite() -> None:
        gate()
        until(lambda: current_run().should_stop)
        seen("stopped")
        raise Retry

    dispatcher = thread()
    polite.options(dispatcher=dispatcher).dispatch()
    gate.arrived()
    gate.open()

    left = dispatcher.close(GENEROUS)

    assert seen.items == ["stopped"]
    assert left == 1


def test_a_handler_may_close(thread, note, gate, seen):
    """C8: a handler that closes its own dispatcher waits for the rest, not for itself."""
    dispatcher = thread(workers=1)

    @task(name="close.self")
    def close() -> None:
        gate()
        seen(dispatcher.close(GENEROUS))

    close.options(dispatcher=dispatcher).dispatch()
    gate.arrived()
    for x in (1, 2):
        note.options(dispatcher=dispatcher).dispatch(x=x)
    gate.open()

    assert seen.wait(3) == [1, 2, 0]


def test_two_handlers_may_close(thread, gate, seen):
    """C8: handlers that close at the same time do not wait for each other."""
    dispatcher = thread(workers=2)

    @task(name="close.both")
    def close(n: int) -> None:
        gate()
        seen(dispatcher.close(GENEROUS))

    for n in range(2):
        close.options(dispatcher=dispatcher).dispatch(n)
    gate.arrived()
    gate.arrived()
    gate.open()

    assert seen.wait(2) == [0, 0]


def test_a_signal_handler_may_close(thread, note, seen, on_signal, monkeypatch):
    """C8: closing from a signal handler that interrupts a dispatch, lock held, drains all the same.

    The interrupted dispatch is answered by what is so: its work will not run.
    """
    dispatcher = thread(workers=1)
    work = note.options(dispatcher=dispatcher)
    left = []
    pool = dispatcher._pool
    push = pool._push

    def interrupted(*args):
        if args[0].body.endswith(b'{"x":2}}'):
            signal.raise_signal(signal.SIGUSR1)
        push(*args)

    monkeypatch.setattr(pool, "_push", interrupted)
    with on_signal(signal.SIGUSR1, lambda *_: left.append(dispatcher.close(GENEROUS))):
        first = work.dispatch(x=1)
        second = work.dispatch(x=2)

    assert first.status is DispatchStatus.ACCEPTED
    assert second.status is DispatchStatus.REJECTED
    assert second.error.category is ErrorCategory.CLOSED
    assert left == [0]
    assert seen.items == [1]


def test_a_signal_handler_may_dispatch(thread, note, seen, on_signal, monkeypatch):
    """C8: a dispatch within a dispatch, lock held, loses neither."""
    dispatcher = thread(workers=1)
    work = note.options(dispatcher=dispatcher)
    pool = dispatcher._pool
    hire = pool._hire
    calls = []

    def interrupted():
        calls.append(1)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGUSR1)
        hire()

    monkeypatch.setattr(pool, "_hire", interrupted)
    with on_signal(signal.SIGUSR1, lambda *_: work.dispatch(x=1)):
        work.dispatch(x=2)

    assert sorted(seen.wait(2)) == [1, 2]


def test_a_finalizer_may_dispatch(thread, note, seen):
    """C8: a `__del__` that dispatches while a worker looks for work wakes a worker up."""
    dispatcher = thread(workers=1)
    work = note.options(dispatcher=dispatcher)

    class Farewell:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            work.dispatch(x=1)

    @task(name="close.collect")
    def collect() -> None:
        Farewell()
        gc.collect()

    collect.options(dispatcher=dispatcher).dispatch()

    assert seen.wait(1) == [1]


def test_close_is_waited_for_by_no_lock(thread, block, note, gate):
    """C2: while another thread closes and waits, a dispatch is answered at once."""
    dispatcher = thread(workers=1)
    block.options(dispatcher=dispatcher).dispatch()
    gate.arrived()
    closer = threading.Thread(target=dispatcher.close, args=(GENEROUS,))
    closer.start()
    until(lambda: dispatcher._pool._closing)

    with within(dispatcher.options.deadline):
        response = note.options(dispatcher=dispatcher).dispatch(x=1)
    gate.open()
    closer.join(GENEROUS)

    assert response.error.category is ErrorCategory.CLOSED
