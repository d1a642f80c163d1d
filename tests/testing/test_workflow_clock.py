"""The clock of workflow tests: time skips, orders vary, turns die, replays are compared."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatchers import StepError, task
from dispatchers.testing.workflows import ReplayError, WorkflowClock
from dispatchers.workflows import Signal, local, now, publish, restart, undo, workflow

approval = Signal("approval", bool)
DAY = timedelta(days=1)


@task(name="clock.charge", max_attempts=5)
def charge(order: int) -> str:
    return f"payment-{order}"


@task(name="clock.refund")
def refund(payment: str) -> None: ...


@task(name="clock.reserve", max_attempts=3)
async def reserve(order: int, sku: str) -> str:
    return f"{order}-{sku}"


@workflow(name="clock.checkout")
async def checkout(order: int, skus: list[str]) -> list[str]:
    async with undo() as undone:
        payment = await charge.step(order)
        undone.by(refund, payment)
        parcels = await asyncio.gather(*[reserve.step(order, sku) for sku in skus])
        publish(stage="waiting", parcels=len(parcels))
        try:
            async with asyncio.timeout(3 * 86400):
                approved = await approval.receive()
        except TimeoutError:
            approved = False
        if not approved:
            raise ValueError(f"order {order} was declined")
    await asyncio.sleep(30 * 86400)
    return parcels


def test_three_days_without_an_answer(workflow_clock):
    """The block is undone, after exactly the time that the code waits."""
    execution = workflow_clock.start(checkout, order=7, skus=["a"])

    workflow_clock.run()

    assert execution.status() == "failed"
    assert execution.steps() == ["clock.charge", "clock.reserve", "clock.refund"]
    assert workflow_clock.elapsed == timedelta(days=3)


def test_an_answer_in_time(workflow_clock):
    """33 days pass in no time; the signal is sent when the test says so."""
    execution = workflow_clock.start(checkout, order=7, skus=["a", "b", "c"], key="order-7")
    workflow_clock.run_until(lambda: execution.state() is not None)
    workflow_clock.advance(2 * DAY)
    assert execution.status() == "running"

    workflow_clock.send(approval, execution, value=True)
    workflow_clock.run()

    assert execution.id == "clock.checkout/order-7"
    assert execution.result() == ["7-a", "7-b", "7-c"]
    assert workflow_clock.elapsed == timedelta(days=32)


def test_result_runs_the_clock(workflow_clock):
    """What has not been run yet is run where its result is asked for."""
    execution = workflow_clock.start(checkout, order=7, skus=[])
    workflow_clock.send(approval, execution, value=True)

    assert execution.result() == []


def test_steps_fail_and_return_what_a_test_says(workflow_clock):
    """Attempts and back-off are the task's own."""
    workflow_clock.step_fails(charge, ConnectionError("busy"), times=2)
    workflow_clock.step_returns(reserve, "elsewhere", times=1)
    execution = workflow_clock.start(checkout, order=7, skus=["a", "b"])
    workflow_clock.send(approval, execution, value=True)

    workflow_clock.run()

    assert sorted(execution.result())[1] == "elsewhere"
    assert workflow_clock.elapsed > timedelta(days=30)


def test_a_step_that_fails_for_good(workflow_clock):
    """Its attempts are used up, then the code is told."""
    workflow_clock.step_fails(reserve, ConnectionError)
    execution = workflow_clock.start(checkout, order=7, skus=["a"])

    workflow_clock.run()

    assert execution.status() == "failed"
    assert "ConnectionError" in (execution.why() or "")
    assert execution.steps()[-1] == "clock.refund"


@workflow(name="clock.parent")
async def parent(order: int) -> str:
    try:
        return ",".join(await checkout.options(idempotency_key="c").step(order, ["x"]))
    except StepError as exc:
        return f"{exc.exception_type} {exc.message}"


def test_children_are_answered_for_too(workflow_clock):
    """A child that a test answers for does not begin."""
    workflow_clock.step_returns(checkout, ["z"])

    assert workflow_clock.start(parent, 1).result() == "z"
    assert workflow_clock.elapsed == timedelta()


def test_a_child_that_fails(workflow_clock):
    """As for a step."""
    workflow_clock.step_fails(checkout, ValueError("no"))

    assert workflow_clock.start(parent, 2).result() == "ValueError no"


def test_a_value_that_does_not_fit_is_refused(workflow_clock):
    """C5: a test cannot answer what the task could not."""
    with pytest.raises(ValueError, match="result"):
        workflow_clock.step_returns(charge, 7)


chances = itertools.count()


@workflow(name="clock.published")
async def published() -> None:
    publish(at=next(chances))
    await asyncio.sleep(1)


@workflow(name="clock.counted")
async def counted() -> int:
    await asyncio.sleep(1)
    return next(chances)


@workflow(name="clock.choosing")
async def choosing() -> None:
    await asyncio.sleep(1)
    await (charge.step(1) if next(chances) % 2 else refund.step("x"))
    await asyncio.sleep(1)


@pytest.mark.parametrize("flow", [published, counted, choosing])
def test_code_that_does_not_repeat_itself_fails_the_test(flow):
    """D5, always: not only if a worker happens to die."""
    with WorkflowClock.installed(3) as clock:
        clock.start(flow)
        with pytest.raises(ReplayError, match=r"clock\.\w+/1"):
            clock.run()


@task(name="clock.note")
def note(place: int) -> int:
    return place


@workflow(name="clock.order")
async def order(count: int) -> list[int]:
    done: list[int] = []

    async def one(place: int) -> None:
        await note.step(place)
        done.append(place)

    await asyncio.gather(*[one(place) for place in range(count)])
    return done


def order_of(seed: int) -> list[int]:
    with WorkflowClock.installed(seed) as clock:
        return clock.start(order, 5).result()


def test_simultaneous_answers_come_in_any_order():
    """The seed decides, and repeats."""
    found = {tuple(order_of(seed)) for seed in range(20)}

    assert len(found) > 10
    assert order_of(5) == order_of(5)


calls: list[str] = []


def fetch() -> str:
    calls.append("fetch")
    return "rate"


@workflow(name="clock.local")
async def with_local() -> tuple[str, datetime, datetime]:
    rate = await local(fetch)
    before = now()
    await asyncio.sleep(60)
    return rate, before, now()


@pytest.mark.parametrize("seed", range(12))
def test_turns_die_without_changing_anything(seed):
    """D2, D3: for each seed the same, and what was recorded is not done again."""
    calls.clear()
    with WorkflowClock.installed(seed) as clock:
        began = clock.now
        found = [clock.start(with_local) for _ in range(4)]
        assert [each.result()[0] for each in found] == ["rate"] * 4
        assert found[0].result()[1:] == (began, began + timedelta(seconds=60))
    assert calls == ["fetch"] * 4


@workflow(name="clock.endless")
async def endless(page: int = 0) -> None:
    await asyncio.sleep(3600)
    publish(page=page)
    raise restart(page=page + 1)


def test_a_workflow_without_end_is_run_as_long_as_is_asked(workflow_clock):
    """`advance` and `run_until` bound it."""
    execution = workflow_clock.start(endless)
    workflow_clock.advance(timedelta(hours=10))
    assert execution.state() == {"page": 9}

    workflow_clock.run_until(lambda: execution.state() == {"page": 12})
    assert workflow_clock.elapsed == timedelta(hours=13)


def test_a_condition_that_never_holds(workflow_clock):
    """It is an assertion of the test."""
    workflow_clock.start(checkout, order=7, skus=[])

    with pytest.raises(AssertionError, match="nothing is left to do"):
        workflow_clock.run_until(lambda: False)


def test_delays_within_a_workflow_are_by_the_same_clock(workflow_clock):
    """A dispatch with a delay comes when the clock says so."""
    seen: list[Any] = []
    workflow_clock.step_returns(refund, None)

    @workflow(name="clock.delays")
    async def delays() -> None:
        refund.options(delay=DAY).dispatch("x")

    execution = workflow_clock.start(delays)
    seen.append(execution.result())

    assert workflow_clock.elapsed == DAY


def test_the_system_clock_comes_back():
    """Nothing of a clock is left."""
    from dispatchers._runtime import clock

    with WorkflowClock.installed(random.randrange(100)) as moved:
        moved.advance(400 * DAY)
        assert clock.now() > datetime.now(UTC) + 300 * DAY
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=5)
    assert not clock.is_moved_by_hand()
