"""Threads of ours that event loops wait for: who begins what, and what they outlive."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from dispatchers._runtime import to_thread
from dispatchers._runtime.to_thread import REST, Threads, off_loop

PATIENCE = 30.0


@pytest.fixture
def threads():
    made = Threads(2, "threads-test")
    yield made
    if made._executor is not None:
        made._executor.shutdown()


def begun(threads, *works):
    """Begin all, and wait for the last to end."""
    ended = threading.Event()
    for work in works:
        threads.begin(work)
    threads.begin(ended.set)
    assert ended.wait(PATIENCE)


def held(threads, count):
    """Keep so many threads at work; return what lets them go on."""
    go_on, at_work = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        at_work.release()
        go_on.wait(PATIENCE)

    for _ in range(count):
        threads.begin(wait)
    assert all(at_work.acquire(timeout=PATIENCE) for _ in range(count))
    return go_on


def test_a_thread_that_rests_begins_what_comes_next(threads, monkeypatch):
    """The executor is asked once: waking the thread is half the cost."""
    monkeypatch.setattr("dispatchers._runtime.to_thread.REST", PATIENCE)
    seen, asked, submit = [], [], threads.submit
    monkeypatch.setattr(threads, "submit", lambda work: (asked.append(work), submit(work))[1])

    for number in range(1, 4):
        threads.begin(lambda: seen.append(threading.get_ident()))
        while len(seen) < number or not threads._resting:
            threading.Event().wait(0.001)
    threads._resting[0].wake()  # the fixture waits for it

    assert len(set(seen)) == 1
    assert len(asked) == 1


def test_more_work_than_threads_waits_for_no_rest(threads):
    """C2: a thread takes what waits before it rests."""
    go_on, seen = held(threads, 2), []
    for number in range(20):
        threads.begin(lambda number=number: seen.append(number))
    go_on.set()

    begun(threads)

    assert sorted(seen) == list(range(20))


def test_what_is_taken_back_never_begins(threads):
    """C2: at its deadline, work that found no thread was certainly not done."""
    go_on, seen = held(threads, 2), []
    job = threads.begin(lambda: seen.append("begun"))

    taken = job.take()
    go_on.set()
    begun(threads)

    assert taken is not None
    assert job.take() is None
    assert seen == []


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_work_that_raises_holds_up_no_other(threads, error):
    """C8: its caller is told by the work itself; the thread goes on."""
    seen = []

    def fail() -> None:
        raise error

    begun(threads, fail, fail, fail, lambda: seen.append("next"))

    assert seen == ["next"]


def test_what_no_thread_can_begin_any_more_is_refused(threads):
    """C2: after the end of the executor; it never begins later."""
    begun(threads)
    threads._executor.shutdown()
    seen = []

    with pytest.raises(RuntimeError):
        threads.begin(lambda: seen.append("begun"))

    assert seen == []


def test_threads_rest_for_a_moment_only(threads):
    """C8: then the executor has them back, for others and for the interpreter's end."""
    begun(threads)

    until = threading.Event()
    for _ in range(int(PATIENCE / REST)):
        if not threads._resting:
            break
        until.wait(REST)

    with suppress(IndexError):
        pytest.fail(f"{threads._resting[0]} rests for ever")


def test_a_handler_that_has_not_begun_never_does_once_its_caller_is_cancelled(monkeypatch):
    """C8: what has begun goes on to its end."""
    one = Threads(1, "threads-test")
    monkeypatch.setattr(to_thread, "_handlers", one)
    seen, go_on, at_work = [], threading.Event(), threading.Event()

    def first() -> None:
        at_work.set()
        go_on.wait(PATIENCE)
        seen.append("first")

    async def main() -> None:
        callers = [
            asyncio.ensure_future(off_loop(first)),
            asyncio.ensure_future(off_loop(seen.append, "second")),
        ]
        while not at_work.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        assert all(caller.cancelled() for caller in callers)

    asyncio.run(main())
    go_on.set()
    begun(one)
    one._executor.shutdown()

    assert seen == ["first"]


def test_a_handler_is_not_kept_from_asyncios_own_threads():
    """They are the program's own, which may use all of them for long."""
    busy, go_on = ThreadPoolExecutor(1), threading.Event()

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(busy)
        held = loop.run_in_executor(None, go_on.wait, PATIENCE)
        ran_on = await asyncio.wait_for(off_loop(lambda: threading.current_thread().name), PATIENCE)
        go_on.set()
        await held
        return ran_on

    assert asyncio.run(main()).startswith("dispatchers-handler")


@pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit])
def test_what_a_handler_raises_is_its_callers(error):
    """C8: whatever it is, also what futures do not carry."""

    def fail() -> None:
        raise error

    async def main() -> BaseException | None:
        try:
            await off_loop(fail)
        except BaseException as exc:  # noqa: BLE001 - compared below
            # A coroutine cannot raise StopIteration: Python wraps it.
            return exc.__cause__ if error is StopIteration else exc
        return None

    assert isinstance(asyncio.run(main()), error)
