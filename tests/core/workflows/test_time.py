"""T: time in executions, skipped by a test's clock, and kept by sweeps and delays elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from dispatchers import override
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers._runtime.clock import moved_by_hand
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.testing.workflows import WorkflowClock
from dispatchers.workflows import now, sweep, workflow
from dispatchers.workflows._cache import live
from dispatchers.workflows._sweep import Sweeper

DAY = 86400.0


@workflow(name="time.slept")
async def slept(seconds: list[float]) -> list[datetime]:
    found = [now()]
    for each in seconds:
        await asyncio.sleep(each)
        found.append(now())
    return found


@workflow(name="time.until")
async def slept_until(seconds: str) -> None:
    await asyncio.sleep(float(seconds))


@workflow(name="time.limited_by")
async def limited_by(seconds: str) -> None:
    async with asyncio.timeout(float(seconds)):
        await asyncio.sleep(0)


@workflow(name="time.order")
async def order(instants: list[float]) -> list[int]:
    done: list[int] = []

    async def one(place: int, after: float) -> None:
        await asyncio.sleep(after)
        done.append(place)

    await asyncio.gather(*[one(place, after) for place, after in enumerate(instants)])
    return done


@workflow(name="time.limited")
async def limited(outer: float, inner: float) -> str:
    try:
        async with asyncio.timeout(outer):
            try:
                async with asyncio.timeout(inner):
                    await asyncio.sleep(10)
            except TimeoutError:
                await asyncio.sleep(10)
                return "inner"
    except TimeoutError:
        return "outer"
    return "slept"


def test_time_is_skipped(workflow_clock):
    """T1: 33 days, to the microsecond, in the time that the turns take."""
    began = workflow_clock.now
    execution = workflow_clock.start(slept, [3 * DAY, 30 * DAY, 0.25])

    found = execution.result()

    gone = [each - began for each in found]
    assert gone[1:] == [
        timedelta(days=3),
        timedelta(days=33),
        timedelta(days=33, milliseconds=250),
    ]
    assert workflow_clock.elapsed == gone[-1]


@pytest.mark.parametrize("instants", list(itertools.permutations([5.0, 10.0, 15.0, 20.0]))[::5])
def test_timers_fire_in_the_order_of_their_instants(instants):
    """T2: whichever was asked for first."""
    with WorkflowClock.installed(4) as clock:
        found = clock.start(order, list(instants)).result()

    assert [instants[place] for place in found] == sorted(instants)


def test_timers_of_one_instant_fire_in_the_order_of_the_code(workflow_clock):
    """T3: ties are no chance."""
    assert workflow_clock.start(order, [5.0] * 6).result() == list(range(6))


@pytest.mark.parametrize(
    ("outer", "inner", "found", "seconds"),
    [(30, 30, "slept", 10), (30, 5, "inner", 15), (5, 30, "outer", 5), (12, 5, "outer", 12)],
)
def test_a_timeout_counts_from_where_the_code_began_it(outer, inner, found, seconds):
    """T4: a cancelled timer is waited for by nothing, and wakes nothing."""
    with WorkflowClock.installed(outer) as clock:
        assert clock.start(limited, outer, inner).result() == found
        assert clock.elapsed == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [[0.0], [-1.0], [10 * 365 * DAY], [1e-3] * 3])
def test_every_span_can_be_slept(seconds):
    """T5: nothing, the past, ten years, a millisecond."""
    with WorkflowClock.installed(1) as clock:
        clock.start(slept, seconds).result()
        assert clock.elapsed == timedelta(seconds=sum(each for each in seconds if each > 0))


class ShortDelays(MemoryDispatcher):
    """A backend with delays of a day at most."""

    capabilities = MemoryDispatcher.capabilities.model_copy(update={"max_delay": timedelta(days=1)})
    journal = None  # none of its own: timers are woken by messages, as on a broker


@pytest.fixture
def broker(tmp_path):
    """A queue with a delay of its own, beside a journal in SQLite."""
    queue = ShortDelays()
    with override({"workflows": f"sqlite:{tmp_path / 'work.sqlite3'}"}, default=queue):
        yield queue
        live.clear()


def begun(key: str, *seconds: float) -> None:
    slept.options(idempotency_key=key).dispatch(list(seconds)).raise_for_error()


def test_a_timer_within_the_longest_delay_is_a_message(broker):
    """T6: the backend wakes; no sweep is needed."""
    begun("soon", 3600.0)
    broker.run_all()
    (waiting,) = broker.waiting
    assert waiting.task == "time.slept/turn"
    assert waiting.eta is not None

    later = waiting.eta.timestamp()
    with moved_by_hand(lambda: later):
        assert [each.ok for each in broker.run_all()] == [True]

    assert slept.execution("soon").status() == "completed"


def test_a_timer_beyond_the_longest_delay_is_left_to_the_sweep(broker):
    """T7: no message waits for it, and none is refused; what is due is found by its instant."""
    begun("late", 2 * DAY)
    assert [each.ok for each in broker.run_all()] == [True]
    assert broker.waiting == ()
    assert sweep() == 0

    later = time.time() + 2 * DAY + 1
    with moved_by_hand(lambda: later):
        assert sweep() == 1
        broker.run_all()

    assert slept.execution("late").status() == "completed"


def test_a_timer_fires_late_by_a_sweep_at_most(broker):
    """T8: and never early, though nothing but a sweep looks for it."""
    begun("swept", 2.0)
    broker.step()
    # Its message is lost with its broker, which begins anew.
    fresh = ShortDelays()
    with override(default=fresh):
        sweeps = Sweeper(interval=0.2)
        sweeps.start()
        worker = fresh._worker(WorkerOptions())
        try:
            started, ended = _wait(worker)
        finally:
            sweeps.stop()

    assert ended - started >= timedelta(seconds=1)


def _wait(worker) -> list[datetime]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        found = slept.execution("swept").result(timeout=30)
    finally:
        worker.stop()
        thread.join()
    assert found[1] <= datetime.now(UTC)
    return found


@pytest.mark.parametrize("flow", [slept_until, limited_by])
def test_an_instant_that_is_no_number_fails(workflow_clock, flow):
    """D8: it would never come, and the execution would wait for ever; asyncio's own refuses it."""
    execution = workflow_clock.start(flow, "nan")
    workflow_clock.run()

    assert execution.status() == "failed"
    assert "NaN" in execution.why()
