"""Failures as executions keep them: their words, whatever was raised."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dispatchers import DeclarationError, StepError, declare, task
from dispatchers._worker.frames import place_in_task
from dispatchers.testing.processes import wait_until
from dispatchers.testing.workflows import ReplayError
from dispatchers.workflows import _sweep, local, workflow
from dispatchers.workflows._sweep import Sweeper


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class UnreadableClassError(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


RAISED = {
    "unreadable": UnreadableClassError(),
    "empty": ValueError(),
    "unprintable": UnprintableError(),
    "cancelled": asyncio.CancelledError("by itself"),
    "long": ValueError("x" * 5_000_000),
}


@task(name="failures.fail", max_attempts=1)
def fail(kind: str) -> None:
    raise RAISED[kind]


async def fail_within(kind: str) -> None:
    raise RAISED[kind]


@workflow(name="failures.step")
async def by_step(kind: str) -> str:
    try:
        await fail.step(kind)
    except StepError as exc:
        return f"{exc.category} {exc.exception_type} {exc.message}"
    return ""


@workflow(name="failures.local")
async def by_local(kind: str) -> str:
    try:
        await local(fail_within, kind)
    except StepError as exc:
        return f"{exc.category} {exc.exception_type} {exc.message}"
    return ""


@workflow(name="failures.code")
async def by_code(kind: str) -> None:
    await asyncio.sleep(0)
    raise RAISED[kind]


def numbers() -> Iterator[int]:
    return iter([1])


@task(name="failures.numbers")
def count() -> Iterator[int]:
    return numbers()


@workflow(name="failures.untypable")
async def untypable(is_local: bool) -> None:
    await (local(numbers) if is_local else count.step())


@workflow(name="failures.unresolved")
async def unresolved() -> Nowhere:  # noqa: F821 - as a name that only type checkers see
    ...


@workflow(name="failures.wrapped")
async def wrapped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail.step("empty"))


async def added(first: int, second: int) -> int:
    return first + second


@workflow(name="failures.group")
async def by_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail_within("empty"))
        group.create_task(fail_within("cancelled"))
        group.create_task(refused())


async def refused() -> None:
    raise LookupError("out of stock")


@pytest.mark.parametrize("flow", [by_step, by_local])
@pytest.mark.parametrize("kind", ["empty", "unprintable"])
def test_an_exception_without_words_is_told_by_its_class(workflow_clock, flow, kind):
    """D12: it has run, and its message is empty."""
    execution = workflow_clock.start(flow, kind)

    category, name, message = execution.result().split(" ")

    assert category == "handler"
    assert name.endswith(type(RAISED[kind]).__name__)
    assert message == ""


@pytest.mark.parametrize("flow", [by_step, by_local])
def test_a_function_that_is_cancelled_by_itself_has_failed(workflow_clock, flow):
    """D12: a local step is no other than a step."""
    execution = workflow_clock.start(flow, "cancelled")

    assert execution.result() == "handler asyncio.exceptions.CancelledError by itself"


@pytest.mark.parametrize("flow", [by_step, by_local, by_code])
def test_long_words_are_shortened(workflow_clock, flow):
    """D16: an exception's words are no reason to be stuck."""
    execution = workflow_clock.start(flow, "long")
    workflow_clock.run()

    assert execution.status() == ("failed" if flow is by_code else "completed")
    words = execution.why() or execution.result()
    assert "ValueError" in words
    assert len(words) < 3_000


@pytest.mark.parametrize("flow", [by_step, by_local, by_code])
def test_an_exception_that_cannot_be_looked_at_is_a_failure(workflow_clock, flow):
    """D12: asyncio looks at it before a task is done, which then would never be."""
    execution = workflow_clock.start(flow, "unreadable")
    workflow_clock.run()

    assert execution.status() == ("failed" if flow is by_code else "completed")
    assert "UnreadableError" in (execution.why() or execution.result())


def test_a_group_is_told_with_its_parts(workflow_clock):
    """D12: its own words say only how many there are."""
    execution = workflow_clock.start(by_group)
    workflow_clock.run()

    assert "ValueError: ; " in execution.why()
    assert "LookupError: out of stock" in execution.why()


def test_an_exception_that_was_never_raised_has_no_place():
    """The first of a group may be made only."""
    group = ExceptionGroup("two", [ValueError("a"), ValueError("b")])

    assert place_in_task(group) == "; its first is ValueError"


def test_a_step_that_leaves_ends_no_sweeping(monkeypatch):
    """D2: its thread fires the timers of all other executions, too."""
    swept = threading.Event()
    raised = [SystemExit(3), KeyboardInterrupt(), GeneratorExit()]

    def sweep() -> int:
        if raised:
            raise raised.pop()
        swept.set()
        return 0

    monkeypatch.setattr(_sweep, "sweep", sweep)
    sweeper = Sweeper(interval=0.001)
    sweeper.start()
    wait_until(swept.is_set, "the thread has ended")
    sweeper.stop()


def test_a_result_that_cannot_travel_is_refused_where_it_is_declared():
    """C5, D7: no execution begins whose end cannot be recorded."""

    async def endless() -> Iterator[int]:
        return numbers()

    with pytest.raises(DeclarationError, match="the 'result' is annotated with"):
        workflow(name="failures.endless")(endless)
    with pytest.raises(DeclarationError, match="the 'result' is annotated with"):
        by_group.version(2)(endless)


@pytest.mark.parametrize(("is_local", "name"), [(True, "local(numbers, "), (False, "'failures.n")])
def test_a_function_whose_result_cannot_travel_is_named(workflow_clock, is_local, name):
    """D7: the code may ask for many."""
    execution = workflow_clock.start(untypable, is_local)
    workflow_clock.run()

    assert name in execution.why()


def test_a_result_without_a_type_is_no_fault_of_the_arguments(workflow_clock):
    """D5: what is stuck says why."""
    workflow_clock.start(unresolved)

    with pytest.raises(ReplayError, match="stuck: its code cannot run: the result of unresolved"):
        workflow_clock.run()


def test_a_task_around_a_step_is_told_what_a_step_is(workflow_clock):
    """A step runs from the moment it is made."""
    execution = workflow_clock.start(wrapped)
    workflow_clock.run()

    assert "step failures.fail (1) runs already" in execution.why()


def test_a_partial_function_is_a_workflow(workflow_clock):
    """As it is a task, under a name."""
    flow = workflow(name="failures.partial")(functools.partial(added, 1))
    execution = workflow_clock.start(flow, 2)

    assert execution.result() == 3


def test_a_misspelt_option_names_its_decorator():
    """Each decorator has its own options."""
    with pytest.raises(DeclarationError, match=r"^@workflow: .*; did you mean 'version'"):
        workflow(name="failures.misspelt", versoin=2)
    with pytest.raises(DeclarationError, match=r"^@declare: .*; did you mean 'name'"):
        declare(nam="failures.misspelt")
