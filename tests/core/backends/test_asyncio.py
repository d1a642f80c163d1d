"""`asyncio`: handing over to event loops, running, retrying and draining."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import threading
import weakref
from datetime import timedelta
from time import monotonic

import pytest

from dispatchers import (
    Backoff,
    ConfigurationError,
    Discard,
    DispatchStatus,
    ErrorCategory,
    Retry,
    current_run,
    task,
)
from dispatchers._worker import settlement
from dispatchers.backends.asyncio import AsyncioDispatcher

from ...timing import within  # noqa: TID252 - as for the other cases
from .conftest import GENEROUS

HOUR = timedelta(hours=1)


@pytest.fixture
def looped():
    return AsyncioDispatcher()


@pytest.fixture
def note(seen):
    """An async task that notes its argument."""

    @task(name="asyncio.note")
    async def note(x: int) -> None:
        seen(x)

    return note


@pytest.fixture
def stuck(seen):
    """An async task that waits for ever."""

    @task(name="asyncio.stuck")
    async def stuck(n: int = 0) -> None:
        seen("stuck")
        await asyncio.Event().wait()

    return stuck


@pytest.fixture
def loop():
    """An event loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(GENEROUS)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def errors_in(log):
    return [text for level, text in log() if level == logging.ERROR]


def test_accepts_and_runs_on_the_loop(looped, seen):
    """C3: the work is accepted, not durable, and runs on the loop once the caller lets it."""

    @task(name="asyncio.where")
    async def where() -> None:
        seen(asyncio.get_running_loop())

    async def main():
        response = where.options(dispatcher=looped).dispatch()
        before = list(seen.items)
        left = await looped.adrain()
        return response, before, left, asyncio.get_running_loop()

    response, before, left, running = asyncio.run(main())

    assert response.status is DispatchStatus.ACCEPTED
    assert (response.confirmed, response.durable) == (True, False)
    assert before == []
    assert left == 0
    assert seen.items == [running]


def test_sync_and_async_agree(looped, note, seen):
    """C8: `adispatch` and `adispatch_many` answer as `dispatch` does."""

    async def main():
        one = await looped.adispatch(note.request(x=1))
        many = await looped.adispatch_many([note.request(x=2), note.request(x=3)])
        await looped.adrain()
        return one, many

    one, many = asyncio.run(main())

    assert one.status is DispatchStatus.ACCEPTED
    assert many.ok
    assert seen.items == [1, 2, 3]


def test_sync_tasks_do_not_block_the_loop(looped, seen, gate):
    """C8: a sync task runs on a thread while the loop goes on."""

    @task(name="asyncio.sync")
    def sync() -> None:
        gate()
        seen(threading.current_thread())

    async def main():
        sync.options(dispatcher=looped).dispatch()
        await asyncio.to_thread(gate.arrived)
        gate.open()
        await looped.adrain()
        return threading.current_thread()

    loops_thread = asyncio.run(main())

    assert seen.items != [loops_thread]
    assert len(seen.items) == 1


def test_tasks_are_not_collected_while_they_wait(looped, seen):
    """A task that nothing else refers to is not lost to the garbage collector."""
    futures = weakref.WeakSet()

    @task(name="asyncio.waits")
    async def waits() -> None:
        future = asyncio.get_running_loop().create_future()
        futures.add(future)
        await future
        seen("done")

    async def main():
        waits.options(dispatcher=looped).dispatch()
        while not futures:  # noqa: ASYNC110 - the handler's own steps are what it waits for
            await asyncio.sleep(0)
        gc.collect()
        for future in list(futures):
            future.set_result(None)
        await looped.adrain()

    asyncio.run(main())

    assert seen.items == ["done"]


def test_delay_holds_back(looped, seen):
    """C6: delayed work is not run before it is due."""

    @task(name="asyncio.when")
    async def when(x: int) -> None:
        seen((x, monotonic()))

    async def main():
        when.options(dispatcher=looped, delay=timedelta(seconds=0.1)).dispatch(x=1)
        when.options(dispatcher=looped).dispatch(x=2)
        await looped.adrain()

    started = monotonic()
    asyncio.run(main())

    assert [x for x, _ in seen.items] == [2, 1]
    assert seen.items[1][1] - started >= 0.09


def test_late_work_is_not_run(looped, note, seen):
    """C6: work that comes up after `expires` is not run."""

    async def main():
        note.options(
            dispatcher=looped, delay=timedelta(seconds=0.05), expires=timedelta(seconds=0.01)
        ).dispatch(x=1)
        return await looped.adrain()

    assert asyncio.run(main()) == 0
    assert seen.items == []


def test_priority_is_refused(looped, note):
    """C6: a loop knows no priorities, and says so."""
    response = note.options(dispatcher=looped, priority=1).dispatch(x=1)

    assert response.error.category is ErrorCategory.UNSUPPORTED


def test_failures_are_tried_again(looped, seen, log):
    """Failed work is tried again up to `max_attempts`, with its back-off, and logged at once."""

    @task(name="asyncio.flaky", max_attempts=3, backoff=Backoff(initial=0.05, factor=2))
    async def flaky() -> None:
        seen((current_run().attempt, monotonic()))
        raise ValueError("secret")

    async def main():
        flaky.options(dispatcher=looped).dispatch()
        return await looped.adrain()

    left = asyncio.run(main())

    (first, at1), (second, at2), (third, at3) = seen.items
    assert (first, second, third, left) == (1, 2, 3, 0)
    assert at2 - at1 >= 0.049
    assert at3 - at2 >= 0.099
    assert len(errors_in(log)) == 1
    assert not any("secret" in text for _, text in log())


def test_retry_and_discard(looped, seen):
    """`Retry(after=...)` beats the back-off, `Discard` ends the work."""

    @task(name="asyncio.asks", max_attempts=5, backoff=Backoff(initial=3600))
    async def asks() -> None:
        seen(current_run().attempt)
        raise Retry(after=0) if current_run().attempt == 1 else Discard()

    async def main():
        asks.options(dispatcher=looped).dispatch()
        return await looped.adrain()

    assert asyncio.run(main()) == 0
    assert seen.items == [1, 2]


def test_runs_end_at_their_time_limit(looped, stuck, log):
    """C6: an async run is cancelled at its time limit, and counts as failed."""

    async def main():
        stuck.options(dispatcher=looped, time_limit=0.05).dispatch()
        return await looped.adrain(GENEROUS)

    assert asyncio.run(main()) == 0
    assert "TimeLimitError" in errors_in(log)[0]


@pytest.mark.parametrize(
    ("kind", "is_async"),
    [
        (SystemExit, True),
        (SystemExit, False),
        (asyncio.CancelledError, True),
        (asyncio.CancelledError, False),
        (GeneratorExit, True),
    ],
)
def test_a_task_that_exits_does_not_end_the_loop(seen, log, kind, is_async):
    """C8: what is no `Exception` counts as failed, once in the log; the loop goes on."""
    if is_async:

        @task(name="asyncio.exits")
        async def exits() -> None:
            raise kind("secret")
    else:

        @task(name="asyncio.exits")
        def exits() -> None:
            raise kind("secret")

    looped = AsyncioDispatcher(dead_letters="memory")

    async def main():
        response = exits.options(dispatcher=looped).dispatch()
        return response, await looped.adrain(GENEROUS)

    response, left = asyncio.run(main())

    (error,) = errors_in(log)
    assert left == 0
    assert kind.__name__ in error
    assert "secret" not in error
    letter = looped._dead_letters().get(response.request_id)
    assert letter.error.exception_type.endswith(kind.__name__)


def test_a_ctrl_c_in_a_handler_goes_on(looped, log):
    """C1: `KeyboardInterrupt` is somebody's Ctrl-C: it passes, and the work counts as undone."""

    @task(name="asyncio.interrupted")
    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def main():
        interrupted.options(dispatcher=looped).dispatch()
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())

    assert errors_in(log) == ["'asyncio' (asyncio): its event loop ended with 1 undone"]
    assert not list(looped._keys)


def test_context_is_the_callers(looped, seen):
    """A run sees the context variables of its dispatch; each attempt begins with them afresh."""
    variable = contextvars.ContextVar("variable", default="nobody")

    @task(name="asyncio.context", max_attempts=2)
    async def context() -> None:
        seen(variable.get())
        variable.set("handler")
        raise Retry(after=0)

    async def main():
        variable.set("caller")
        context.options(dispatcher=looped).dispatch()
        variable.set("later")
        await looped.adrain()

    asyncio.run(main())

    assert seen.items == ["caller", "caller"]


def test_full_is_capacity(note, stuck):
    """C4: beyond `capacity` the answer is `capacity`, and repeating may help."""
    looped = AsyncioDispatcher(capacity=1)

    async def main():
        first = note.options(dispatcher=looped).dispatch(x=1)
        refused = note.options(dispatcher=looped).dispatch(x=2)
        await looped.adrain()
        again = note.options(dispatcher=looped).dispatch(x=3)
        await looped.adrain()
        return first, refused, again

    first, refused, again = asyncio.run(main())

    assert refused.error.category is ErrorCategory.CAPACITY
    assert refused.error.retryable
    assert first.ok
    assert again.ok


def test_a_known_key_is_a_duplicate(looped, note, seen):
    """C10: a key that waits or runs is a duplicate; then it is free again."""
    keyed = note.options(dispatcher=looped, idempotency_key="k", deduplicate=True)

    async def main():
        first, running = keyed.dispatch(x=1), keyed.dispatch(x=1)
        await looped.adrain()
        free = keyed.dispatch(x=3)
        await looped.adrain()
        return first, running, free

    first, running, free = asyncio.run(main())

    assert (first.status, free.status) == ("accepted", "accepted")
    assert (running.status, running.task_id) == ("duplicate", first.request_id)
    assert seen.items == [1, 3]


def test_failed_for_good_is_kept(note):
    """C9: work that failed permanently is a dead letter."""

    @task(name="asyncio.fails")
    async def fails() -> None:
        raise ValueError

    looped = AsyncioDispatcher(dead_letters="memory")

    async def main():
        response = fails.options(dispatcher=looped).dispatch()
        await looped.adrain()
        return response

    response = asyncio.run(main())

    assert looped.capabilities.dead_letters
    assert looped._dead_letters().get(response.request_id).task == "asyncio.fails"


def test_work_comes_back_if_its_letter_cannot_be_kept(looped, seen, log, monkeypatch):
    """C9: work is not given up before its dead letter is safe."""
    monkeypatch.setattr(settlement, "RETRY_DELAY", 0.0)
    letters = []

    class Fickle:
        def add(self, letter):
            seen("add")
            if len(seen.items) == 1:
                raise OSError
            letters.append(letter)

    @task(name="asyncio.fickle")
    async def fails() -> None:
        raise ValueError

    async def main():
        looped._letters = Fickle()
        fails.options(dispatcher=looped).dispatch()
        return await looped.adrain()

    assert asyncio.run(main()) == 0
    assert seen.items == ["add", "add"]
    assert len(letters) == 1


# Draining.


def test_draining_has_a_timeout(looped, stuck, note):
    """`adrain` says how much is undone when its time is up, and leaves it running."""

    async def main():
        stuck.options(dispatcher=looped).dispatch()
        note.options(dispatcher=looped, delay=HOUR).dispatch(x=1)
        with within(0.05):
            left = await looped.adrain(0.05)
        looped.close()
        return left

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_may_drain(looped, note, seen, is_async):
    """A handler that drains waits for the rest, not for itself, also from tasks of its own."""

    @task(name="asyncio.drains")
    async def drains() -> None:
        draining = looped.adrain()
        seen(await (asyncio.create_task(draining) if is_async else draining))

    async def main():
        for _ in range(2):
            drains.options(dispatcher=looped).dispatch()
        note.options(dispatcher=looped, delay=timedelta(seconds=0.05)).dispatch(x=7)
        await looped.adrain()

    asyncio.run(main())

    assert seen.items[0] == 7
    assert len(seen.items) == 3


def test_draining_an_idle_loop(looped):
    """Nothing to wait for is no wait."""

    async def main():
        return await looped.adrain()

    assert asyncio.run(main()) == 0


# The end of loops.


def test_a_loop_that_ends_says_what_it_left(looped, note, stuck, log):
    """C8: what was running or waiting when the loop ended is counted, in one record."""

    async def main():
        stuck.options(dispatcher=looped).dispatch()
        note.options(dispatcher=looped, delay=HOUR).dispatch(x=1)
        await asyncio.sleep(0)

    asyncio.run(main())

    assert errors_in(log) == ["'asyncio' (asyncio): its event loop ended with 2 undone"]
    assert not list(looped._keys)


def test_a_loop_that_ends_with_nothing_left_says_nothing(looped, note, log):
    """C4: no event, no record."""

    async def main():
        note.options(dispatcher=looped).dispatch(x=1)
        await looped.adrain()

    asyncio.run(main())

    assert errors_in(log) == []


def test_a_loop_closed_without_ceremony_is_noticed(looped, note, log):
    """C8: a loop that was closed by hand is noticed at the next dispatch, on whatever loop."""
    loop = asyncio.new_event_loop()

    async def leave():
        note.options(dispatcher=looped, delay=HOUR).dispatch(x=1)

    async def elsewhere():
        note.options(dispatcher=looped).dispatch(x=2)
        await looped.adrain()

    loop.run_until_complete(leave())
    loop.close()
    asyncio.run(elsewhere())

    assert errors_in(log) == ["'asyncio' (asyncio): its event loop ended with 1 undone"]
    assert loop not in looped._loops


def test_work_that_somebody_cancels_is_left(looped, stuck, seen, log):
    """C8: a run that other code cancels is over, counted when its loop ends, and frees its key."""
    keyed = stuck.options(dispatcher=looped, idempotency_key="k")

    async def main():
        keyed.dispatch()
        while not seen.items:  # noqa: ASYNC110 - the handler's own steps are what it waits for
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        return await looped.adrain(GENEROUS), set(looped._keys)

    left, keys = asyncio.run(main())

    assert (left, keys) == (0, set())
    assert errors_in(log) == ["'asyncio' (asyncio): its event loop ended with 1 undone"]


def test_two_loops_are_apart(looped, seen):
    """C8: work runs on the loop it was dispatched on; each loop drains its own."""
    both = threading.Barrier(2)

    @task(name="asyncio.apart")
    async def apart(n: int) -> None:
        seen((n, asyncio.get_running_loop()))

    async def main(n):
        await asyncio.to_thread(both.wait, GENEROUS)
        apart.options(dispatcher=looped).dispatch(n)
        await looped.adrain()
        await asyncio.to_thread(both.wait, GENEROUS)
        return asyncio.get_running_loop()

    loops = {}
    other = threading.Thread(target=lambda: loops.update({1: asyncio.run(main(1))}))
    other.start()
    loops[0] = asyncio.run(main(0))
    other.join(GENEROUS)

    assert dict(seen.items) == loops


def test_one_loop_after_the_other(looped, note, seen):
    """C8: a dispatcher outlives its loops, as a process that calls `asyncio.run` again has it."""

    async def main(x):
        note.options(dispatcher=looped).dispatch(x=x)
        return await looped.adrain()

    lefts = [asyncio.run(main(x)) for x in range(3)]

    assert lefts == [0, 0, 0]
    assert seen.items == [0, 1, 2]


# Where no loop runs.


def test_without_a_loop_it_runs_in_the_call(looped, note, seen):
    """C3: by default work without a loop is executed, to its end, and says so."""
    response = note.options(dispatcher=looped).dispatch(x=1)

    assert response.status is DispatchStatus.EXECUTED
    assert response.is_sync
    assert seen.items == [1]


def test_in_the_call_attempts_are_honoured(seen):
    """Attempts and back-off hold in the call as well, and the answer is the last one's."""

    @task(name="asyncio.incall", max_attempts=3, backoff=Backoff(initial=0.01))
    async def fails() -> None:
        seen(current_run().attempt)
        raise ValueError

    many = fails.options(dispatcher=AsyncioDispatcher()).dispatch()
    once = fails.options(dispatcher=AsyncioDispatcher(inline_retries="never")).dispatch()

    assert (many.status, once.status) == (DispatchStatus.FAILED, DispatchStatus.FAILED)
    assert seen.items == [1, 2, 3, 1]


def test_in_the_call_a_delay_is_refused(looped, note, seen):
    """C6: what runs in the call cannot be delayed, and is refused instead of run at once."""
    response = note.options(dispatcher=looped, delay=HOUR).dispatch(x=1)

    assert response.error.category is ErrorCategory.UNSUPPORTED
    assert seen.items == []


def test_in_the_call_a_key_is_not_run_within_itself(looped, seen):
    """C10: a task that dispatches its own key again is answered with a duplicate."""

    @task(name="asyncio.nested")
    def nested() -> None:
        seen(nested.options(dispatcher=looped, idempotency_key="k").dispatch().status)

    outer = nested.options(dispatcher=looped, idempotency_key="k").dispatch()

    assert outer.status is DispatchStatus.EXECUTED
    assert seen.items == [DispatchStatus.DUPLICATE]


def test_without_a_loop_it_may_refuse(note):
    """C4: with `no_loop = "error"` the answer names the setting."""
    looped = AsyncioDispatcher(no_loop="error")

    response = note.options(dispatcher=looped).dispatch(x=1)

    assert response.error.category is ErrorCategory.CONFIGURATION
    assert "no_loop" in response.error.message


def test_without_a_loop_it_may_hand_to_a_given_one(loop, seen):
    """C8: work is handed to the given loop from any thread, delay included."""

    @task(name="asyncio.given")
    async def given(x: int) -> None:
        seen((x, asyncio.get_running_loop()))

    looped = AsyncioDispatcher(loop=loop)
    work = given.options(dispatcher=looped)
    responses = [
        work.options(delay=timedelta(seconds=0.05)).dispatch(x=1),
        work.dispatch(x=2),
    ]

    assert {each.status for each in responses} == {DispatchStatus.ACCEPTED}
    assert seen.wait(2) == [(2, loop), (1, loop)]


def test_a_given_loop_that_is_closed_is_said(note):
    """C1: a closed loop is an answer, not an exception; its key is free again."""
    loop = asyncio.new_event_loop()
    loop.close()
    looped = AsyncioDispatcher(loop=loop)

    response = note.options(dispatcher=looped).dispatch(x=1)

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category is ErrorCategory.CLOSED
    assert not list(looped._keys)


def test_the_policy_needs_its_loop():
    """Early: `no_loop = "loop"` without a loop is a configuration error that says the cure."""
    with pytest.raises(ConfigurationError, match=r"AsyncioDispatcher\(loop=...\)"):
        AsyncioDispatcher(no_loop="loop")


# Closing.


def test_close_waits_for_a_loop_in_another_thread(loop, gate, seen):
    """C8: closing drains what runs on other threads' loops; delayed work is left."""

    @task(name="asyncio.closing")
    def sync() -> None:
        gate()
        seen(current_run().should_stop)

    looped = AsyncioDispatcher(loop=loop)
    sync.options(dispatcher=looped).dispatch()
    sync.options(dispatcher=looped, delay=HOUR).dispatch()
    gate.arrived()
    threading.Timer(0.05, gate.open).start()

    left = looped.close(GENEROUS)

    assert left == 1
    assert len(seen.items) == 1
    assert sync.options(dispatcher=looped).dispatch().error.category is ErrorCategory.CLOSED


def test_close_has_a_timeout(loop, stuck, seen):
    """C8: what still runs at the timeout is counted."""
    looped = AsyncioDispatcher(loop=loop)
    stuck.options(dispatcher=looped).dispatch()
    seen.wait(1)

    with within(0.1):
        left = looped.close(0.1)
    pending = asyncio.all_tasks(loop)
    for each in pending:
        loop.call_soon_threadsafe(each.cancel)

    assert left == 1


def test_close_on_the_loop_itself_does_not_wait(looped, note, stuck, seen, log):
    """C8: on its own loop closing cannot wait: it counts, and the loop's end does not again."""

    async def main():
        stuck.options(dispatcher=looped).dispatch()
        note.options(dispatcher=looped, delay=HOUR).dispatch(x=1)
        await asyncio.sleep(0)
        return looped.close(GENEROUS), note.options(dispatcher=looped).dispatch(x=2)

    left, response = asyncio.run(main())

    assert left == 2
    assert response.error.category is ErrorCategory.CLOSED
    assert not any("event loop ended" in text for text in errors_in(log))


@pytest.mark.parametrize("is_async", [True, False])
def test_a_handler_may_close(loop, seen, is_async):
    """C8: a handler that closes its dispatcher does not wait for itself."""
    if is_async:

        @task(name="asyncio.selfclose")
        async def close() -> None:
            seen(looped.close(GENEROUS))
    else:

        @task(name="asyncio.selfclose")
        def close() -> None:
            seen(looped.close(GENEROUS))

    looped = AsyncioDispatcher(loop=loop)
    close.options(dispatcher=looped).dispatch()

    assert seen.wait(1) == [0]


def test_giving_up_while_closing_counts_as_left(loop, gate, seen):
    """C8: a handler that hands its work back because of `should_stop` has left it."""

    @task(name="asyncio.polite")
    async def polite() -> None:
        seen("runs")
        while not current_run().should_stop:  # noqa: ASYNC110 - as handlers ask
            await asyncio.sleep(0)
        raise Retry

    looped = AsyncioDispatcher(loop=loop)
    polite.options(dispatcher=looped).dispatch()
    seen.wait(1)

    assert looped.close(GENEROUS) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_with_nothing(python):
    """C8: loops and the work on them stay the parent's; a child runs loops of its own."""
    result = python(
        """
import asyncio, os, sys, warnings
from dispatchers import task
from dispatchers.backends.asyncio import AsyncioDispatcher
warnings.filterwarnings("ignore", ".*multi-threaded.*", DeprecationWarning)
parent = os.getpid()

@task
async def note(x: int) -> None:
    os.write(1, f"{os.getpid() == parent} {x}\\n".encode())

async def run(dispatcher, x):
    note.options(dispatcher=dispatcher).dispatch(x)
    assert await dispatcher.adrain() == 0

given = asyncio.new_event_loop()
handing = AsyncioDispatcher(loop=given)
dispatcher = AsyncioDispatcher()
note.options(dispatcher=handing).dispatch(0)
pid = os.fork()
if pid == 0:
    refused = note.options(dispatcher=handing).dispatch(1)
    assert refused.error.category == "configuration", refused
    asyncio.run(run(dispatcher, 2))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(run(dispatcher, 3))
given.run_until_complete(handing.adrain())
given.run_until_complete(given.shutdown_asyncgens())
given.close()
"""
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["False 2", "True 3", "True 0"]
