"""`BaseAsyncWorker`: coroutines on the core's event loop, handlers on threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dispatchers import BaseAsyncDispatcher, Capabilities, Sent, WorkerOptions, task

from .conftest import GENEROUS, until


class Looking(BaseAsyncDispatcher):
    """A dispatcher that tells its loop."""

    name = "looking"
    contract = 1
    capabilities = Capabilities(confirmed=True)

    async def _asend(self, request, body, *, timeout):
        self.loop = asyncio.get_running_loop()
        return Sent()

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True


@pytest.fixture
def ends():
    """A task that ends as it is told to."""

    @task(name="async_worker.ends", max_attempts=2)
    def ends(how: str) -> None:
        if how == "fails":
            raise OSError(how)
        if how == "dies":
            raise TypeError(how)
        if how == "exits":
            raise SystemExit

    return ends


def test_every_end_is_settled(table, rows, kind, ends):
    """Each outcome is a call of its own."""
    for how in ("works", "fails", "dies"):
        ends.options(dispatcher=table).dispatch(how=how)

    assert kind(table, WorkerOptions(drain=True, concurrency=2)).run() == 0
    assert sorted(rows("attempt, deliveries, dead"), key=str) == [
        (1, 1, "permanent"),
        (2, 0, None),
    ]


def test_its_calls_share_the_loop_of_async_dispatchers(table, kind, ends):
    """A client that is bound to its loop serves both sides."""
    looking = Looking()
    worker = kind(table, WorkerOptions(drain=True, concurrency=2))
    ends.options(dispatcher=looking).dispatch(how="works")
    ends.options(dispatcher=table).dispatch(how="works")
    worker.run()

    assert worker.loops == {looking.loop}


@pytest.mark.parametrize("is_async", [False, True])
def test_handlers_that_block_do_not_hold_up_the_loop(table, rows, working, kind, gate, is_async):
    """Leases are renewed while handlers block their threads, async ones too."""

    class Short(kind):
        lease = 0.3

    if is_async:

        @task(name="async_worker.blocks")
        async def blocks() -> None:
            gate()
    else:

        @task(name="async_worker.blocks")
        def blocks() -> None:
            gate()

    blocks.options(dispatcher=table).dispatch()
    working(Short)
    gate.arrived()
    [(taken,)] = rows("due")
    until(lambda: rows("due")[0][0] > taken + 2 * Short.lease)

    assert rows("deliveries") == [(1,)]


def test_a_call_that_hangs_is_given_up(table, rows, kind, ends):
    """C9: within `timeout` the call is cancelled, and the work given back."""
    cancelled = threading.Event()

    class Hanging(kind):
        timeout = GENEROUS

        def _acomplete(self, work):
            self.timeout = 0.1
            return self.hang()

        async def hang(self):
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        def _agive_back(self, work, after, deliveries):
            self.timeout = GENEROUS
            return super()._agive_back(work, after, deliveries)

    ends.options(dispatcher=table).dispatch(how="works")
    Hanging(table, WorkerOptions()).step()

    assert cancelled.wait(GENEROUS)
    assert rows("deliveries, token") == [(0, None)]


def test_what_runs_beyond_the_grace_is_given_back(table, rows, working, kind, gate):
    """C9: as by a synchronous worker."""

    @task(name="async_worker.held")
    def held() -> None:
        gate()

    held.options(dispatcher=table).dispatch()
    stop = working(kind, grace=0)
    gate.arrived()

    assert stop() == 1
    assert rows("attempt, deliveries, token") == [(1, 0, None)]


def test_a_handler_that_exits_ends_its_run_only(table, rows, kind, ends):
    """C10: dead after too many deliveries, and the worker goes on."""
    ends.options(dispatcher=table).dispatch(how="exits")

    assert kind(table, WorkerOptions(drain=True)).run() == 0
    assert rows("dead") == [("too_many_deliveries",)]
