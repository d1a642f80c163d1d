"""`adispatch` pays for what it needs: no thread where nothing waits, one task at most."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from dispatchers import BaseAsyncDispatcher, Capabilities, DispatchStatus, Sent, hooks, task
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers._runtime.loop_thread import Ended
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.null import NullDispatcher

PATIENCE = 30.0


@task(name="awaited.later")
async def later(number: int) -> None:
    pass


@task(name="awaited.here")
def here(number: int) -> None:
    pass


class Awaiting(BaseAsyncDispatcher):
    """A client that is asyncio only."""

    name = "awaiting"
    contract = 1
    capabilities = Capabilities(confirmed=True)

    async def _asend(self, request, body, *, timeout):
        await asyncio.sleep(0)
        return Sent(request.id)

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True


def tasks_made(work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, int]:
    """Return what a coroutine returned, and how many tasks it made on its loop."""
    made = 0

    def make(loop, coroutine, **more):
        nonlocal made
        made += 1
        return asyncio.Task(coroutine, loop=loop, **more)

    async def main() -> tuple[Any, int]:
        asyncio.get_running_loop().set_task_factory(make)
        return await work(), made

    return asyncio.run(main())


@pytest.mark.parametrize("kind", [MemoryDispatcher, NullDispatcher])
def test_a_hand_over_in_memory_needs_neither_task_nor_thread(kind):
    """C8: what never waits is handed over by the coroutine itself."""
    before = threading.active_count()

    answer, made = tasks_made(lambda: kind().adispatch(here.request(1)))

    assert answer.status is DispatchStatus.ACCEPTED
    assert made == 0
    assert threading.active_count() == before


def test_an_async_run_in_the_call_is_one_task():
    """C8: `inline` runs an async task on the loop, in a task that a cancelled caller leaves."""
    answer, made = tasks_made(lambda: InlineDispatcher().adispatch(later.request(1)))

    assert answer.status is DispatchStatus.EXECUTED
    assert made == 1


def test_each_of_a_batch_in_the_call_has_its_own_context():
    """C5: what one run sets in the context, the next of its batch does not see."""
    left: ContextVar[int] = ContextVar("left", default=0)
    seen: list[int] = []

    @task(name="awaited.leaves")
    async def leaves(number: int) -> None:
        seen.append(left.get())
        left.set(number)

    requests = [leaves.request(1), leaves.request(2)]
    answers = asyncio.run(InlineDispatcher().adispatch_many(requests))

    assert all(answers)
    assert seen == [0, 0]


def test_a_blocking_client_needs_a_thread_and_no_task(adapter, request_):
    """C8: the answer of the thread wakes the coroutine itself."""
    answer, made = tasks_made(lambda: adapter().adispatch(request_))

    assert answer.status is DispatchStatus.ACCEPTED
    assert made == 0


def test_an_asyncio_client_needs_one_task(request_):
    """C8: that of the caller's loop, which a cancelled caller leaves behind."""
    answer, made = tasks_made(lambda: Awaiting().adispatch(request_))

    assert answer.status is DispatchStatus.ACCEPTED
    assert made == 1


def test_what_ends_after_its_loop_is_still_told(adapter, request_):
    """C8: a dispatch whose loop was closed meanwhile reaches the hooks from its thread."""
    begun, go_on, told = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def send(request, body, timeout):
        begun.set()
        go_on.wait(PATIENCE)
        return Sent(request.id)

    def hook(response):
        seen.append(response)
        told.set()

    made = adapter(send)
    hooks.after_dispatch(hook)

    async def main() -> None:
        dispatch = asyncio.ensure_future(made.adispatch(request_))
        await asyncio.to_thread(begun.wait, PATIENCE)
        dispatch.cancel()

    try:
        asyncio.run(main())
        assert seen == []
        go_on.set()
        assert told.wait(PATIENCE)
    finally:
        hooks.remove(hook)

    assert [each.request_id for each in seen] == [request_.id]
    assert seen[0].ok


ORDERS = {
    "ended_first": lambda call, task: (call.end(Ended(1)), task.cancel()),
    "cancelled_first": lambda call, task: (task.cancel(), call.end(Ended(1))),
    "ended_twice": lambda call, task: (task.cancel(), call.end(Ended(1)), call.end(Ended(2))),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_heir_of_a_cancelled_caller_is_told_once(order):
    """C8: however close to each other the cancellation and the end of the call are."""
    told = []

    async def main() -> None:
        call: AwaitedCall[int] = AwaitedCall()
        caller = asyncio.ensure_future(call.outcome(heir=lambda end: told.append(end.result())))
        await asyncio.sleep(0)
        ORDERS[order](call, caller)
        await asyncio.wait([caller])
        assert caller.cancelled()

    asyncio.run(main())

    assert told == [1]


def test_an_heir_sees_the_context_of_its_caller():
    """C8: hooks that are told for a cancelled caller read the caller's variables."""
    variable: ContextVar[str] = ContextVar("variable", default="none")
    seen = []

    async def caller(call: AwaitedCall[int]) -> None:
        variable.set("caller's")
        await call.outcome(heir=lambda _: seen.append(variable.get()))

    async def main() -> None:
        call: AwaitedCall[int] = AwaitedCall()
        waiting = asyncio.ensure_future(caller(call))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        call.end(Ended(1))

    asyncio.run(main())

    assert seen == ["caller's"]
