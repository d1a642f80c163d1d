"""`inline`: the task runs here, during the call, to its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import uuid4

import pytest

from dispatchers import (
    Backoff,
    Discard,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    Retry,
    current_run,
    task,
)
from dispatchers.backends.inline import InlineDispatcher


@pytest.fixture
def note(seen):
    """A task that notes its argument."""

    @task(name="inline.note")
    def note(x: int) -> None:
        seen(x)

    return note


@pytest.fixture
def fails(seen):
    """A task that notes its attempt and fails."""

    @task(name="inline.fails", max_attempts=3, backoff=Backoff(initial=0.02, factor=2))
    def fails() -> None:
        seen((current_run().attempt, monotonic()))
        raise ValueError("secret")

    return fails


def dispatched(work, is_async, /, **arguments):
    """The response, of `dispatch` or of `adispatch` on a loop of its own."""
    if is_async:
        return asyncio.run(work.adispatch(**arguments))
    return work.dispatch(**arguments)


both = pytest.mark.parametrize("is_async", [False, True])


@both
def test_runs_in_the_call(note, seen, is_async):
    """C3: the work is executed when the call returns."""
    response = dispatched(note.options(dispatcher=InlineDispatcher()), is_async, x=1)

    assert response.status is DispatchStatus.EXECUTED
    assert (response.ok, response.is_sync, response.confirmed, response.durable) == (
        True, True, True, False,
    )  # fmt: skip
    assert seen.items == [1]


@both
def test_a_failure_is_the_answer(fails, log, is_async):
    """C4: a failed task is `handler`, with the type, and the exception for those who want it."""
    work = fails.options(dispatcher=InlineDispatcher())

    response = dispatched(work, is_async)

    assert response.status is DispatchStatus.FAILED
    assert response.error.category is ErrorCategory.HANDLER
    assert response.error.exception_type == "ValueError"
    assert "secret" not in response.error.message
    assert isinstance(response.exception, ValueError)


class NoTruthError(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")


def test_a_failure_is_the_answer_whatever_its_truth_is(log):
    """C3: it ran; `rejected` would say that another backend may run it."""

    @task(name="shop.no_truth")
    def no_truth() -> None:
        raise NoTruthError

    response = no_truth.options(dispatcher=InlineDispatcher()).dispatch()

    assert response.status is DispatchStatus.FAILED
    assert isinstance(response.exception, NoTruthError)


@pytest.mark.parametrize(
    ("retries", "attempts"), [("never", [1]), ("immediate", [1, 2, 3]), ("sleep", [1, 2, 3])]
)
@both
def test_attempts_are_a_setting(fails, seen, log, retries, attempts, is_async):
    """One attempt, all at once, or all with their back-off; the capability says which."""
    dispatcher = InlineDispatcher(retries=retries)

    dispatched(fails.options(dispatcher=dispatcher), is_async)

    assert [attempt for attempt, _ in seen.items] == attempts
    assert dispatcher.capabilities.retries is (retries != "never")


@both
def test_sleep_keeps_the_back_off(fails, seen, log, is_async):
    """With `sleep` the wait between attempts is the back-off's."""
    dispatched(fails.options(dispatcher=InlineDispatcher(retries="sleep")), is_async)

    (_, at1), (_, at2), (_, at3) = seen.items
    assert at2 - at1 >= 0.019
    assert at3 - at2 >= 0.039


@both
def test_retry_and_discard(seen, is_async):
    """`Retry(after=...)` beats the back-off, and `Discard` is no failure."""

    @task(name="inline.asks", max_attempts=3, backoff=Backoff(initial=3600))
    def asks() -> None:
        seen(current_run().attempt)
        raise Retry(after=0) if current_run().attempt == 1 else Discard()

    response = dispatched(asks.options(dispatcher=InlineDispatcher(retries="sleep")), is_async)

    assert response.status is DispatchStatus.EXECUTED
    assert seen.items == [1, 2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_passes(kind):
    """C1: `KeyboardInterrupt` and `SystemExit` of a task pass through the dispatch."""

    @task(name="inline.exits")
    def exits() -> None:
        raise kind

    with pytest.raises(kind):
        exits.options(dispatcher=InlineDispatcher()).dispatch()


def test_async_tasks_run_under_a_sync_dispatch(seen):
    """An async task runs on a loop of its own, on another thread where one is running here."""

    @task(name="inline.async")
    async def work() -> None:
        await asyncio.sleep(0)
        seen(threading.current_thread() is threading.main_thread())

    async def main():
        return work.options(dispatcher=InlineDispatcher()).dispatch()

    alone = work.options(dispatcher=InlineDispatcher()).dispatch()
    within = asyncio.run(main())

    assert (alone.status, within.status) == (DispatchStatus.EXECUTED, DispatchStatus.EXECUTED)
    assert seen.items == [True, False]


def test_adispatch_does_not_block_the_loop(seen, gate):
    """C8: a sync task under `adispatch` runs on a thread while the loop goes on."""

    @task(name="inline.blocks")
    def blocks() -> None:
        gate()

    async def main():
        running = asyncio.create_task(blocks.options(dispatcher=InlineDispatcher()).adispatch())
        await asyncio.to_thread(gate.arrived)
        gate.open()
        return await running

    assert asyncio.run(main()).status is DispatchStatus.EXECUTED


def test_the_deadline_never_cuts_a_run(gate, seen):
    """C2: the deadline is for handing over; the run goes to its end."""

    @task(name="inline.long")
    async def long() -> None:
        await asyncio.sleep(0.05)
        seen("end")

    work = long.options(dispatcher=InlineDispatcher(), deadline=0.01)

    responses = [work.dispatch(), asyncio.run(work.adispatch())]

    assert [each.status for each in responses] == [DispatchStatus.EXECUTED] * 2
    assert seen.items == ["end", "end"]


@pytest.mark.parametrize(
    "options",
    [
        {"delay": timedelta(hours=1)},
        {"eta": datetime(2100, 1, 1, tzinfo=UTC)},
        {"priority": 1},
        {"deduplicate": True},
    ],
)
def test_what_it_cannot_do_is_refused_or_waived(note, seen, options):
    """C6: refused before anything runs, or left out where the configuration says so."""
    name = "delay" if "eta" in options else next(iter(options))

    refused = note.options(dispatcher=InlineDispatcher(), **options).dispatch(x=1)
    before = list(seen.items)
    waived = note.options(dispatcher=InlineDispatcher(waive=[name]), **options).dispatch(x=2)

    assert refused.error.category is ErrorCategory.UNSUPPORTED
    assert before == []
    assert waived.status is DispatchStatus.EXECUTED
    assert waived.waived == (name,)


def test_late_work_is_not_run(note, seen, log):
    """C6: work that has expired is rejected, for nothing was done."""
    request = note.request(x=1).replace(
        created_at=datetime(2020, 1, 1, tzinfo=UTC), expires=timedelta(hours=1)
    )

    response = InlineDispatcher().dispatch(request)

    assert response.status is DispatchStatus.REJECTED
    assert seen.items == []


def test_an_unknown_task_is_not_found(log):
    """C11: a task that is not registered here is said, with the nearest name."""
    response = InlineDispatcher().dispatch(DispatchRequest(task="inline.nobody"))

    assert response.status is DispatchStatus.REJECTED
    assert response.error.category is ErrorCategory.NOT_FOUND


def test_wrong_arguments_are_invalid(note, seen, log):
    """C5: the envelope is validated as a worker would."""
    request = DispatchRequest(task="inline.note", payload={"x": "one"})
    assert note.name == request.task

    response = InlineDispatcher().dispatch(request)

    assert response.error.category is ErrorCategory.INVALID
    assert "one" not in response.error.message
    assert seen.items == []


@both
def test_a_known_key_is_a_duplicate(note, seen, is_async):
    """C10: with a store, a key that ran is a duplicate; a failed one may run again."""
    work = note.options(
        dispatcher=InlineDispatcher(idempotency="memory"), idempotency_key=uuid4().hex
    )

    statuses = [dispatched(work, is_async, x=1).status for _ in range(2)]

    assert statuses == [DispatchStatus.EXECUTED, DispatchStatus.DUPLICATE]
    assert seen.items == [1]


def test_a_key_that_failed_runs_again(fails, seen, log):
    """C10: a failed run releases its key."""
    work = fails.options(
        dispatcher=InlineDispatcher(idempotency="memory"), idempotency_key=uuid4().hex
    )

    statuses = [work.dispatch().status for _ in range(2)]

    assert statuses == [DispatchStatus.FAILED] * 2
    assert len(seen.items) == 2


@both
def test_a_key_that_runs_is_a_conflict(seen, is_async):
    """C10: a key whose work is running just now is neither run twice nor said to be done."""
    dispatcher = InlineDispatcher(idempotency="memory")
    key = uuid4().hex

    @task(name="inline.nested")
    async def nested() -> None:
        inner = nested.options(dispatcher=dispatcher, idempotency_key=key)
        seen((await inner.adispatch()).error.category)

    outer = dispatched(nested.options(dispatcher=dispatcher, idempotency_key=key), is_async)

    assert outer.status is DispatchStatus.EXECUTED
    assert seen.items == [ErrorCategory.CONFLICT]


def test_many_run_one_after_the_other(note, seen):
    """A batch is a run for each, in order."""
    responses = InlineDispatcher().dispatch_many([note.request(x=x) for x in range(3)])

    assert [each.status for each in responses] == [DispatchStatus.EXECUTED] * 3
    assert seen.items == [0, 1, 2]


def test_async_runs_see_the_callers_context(seen):
    """An async task under `adispatch` sees the caller's context variables."""
    variable = contextvars.ContextVar("variable", default="nobody")

    @task(name="inline.context")
    async def context() -> None:
        seen(variable.get())

    async def main():
        variable.set("caller")
        await context.options(dispatcher=InlineDispatcher()).adispatch()

    asyncio.run(main())

    assert seen.items == ["caller"]


def test_a_failure_is_in_the_log_without_the_payload(fails, log):
    """C4: what failed is in the log by type and place."""
    fails.options(dispatcher=InlineDispatcher(), max_attempts=1).dispatch()

    errors = [text for level, text in log() if level == logging.ERROR]
    assert errors
    assert not any("secret" in text for text in errors)
