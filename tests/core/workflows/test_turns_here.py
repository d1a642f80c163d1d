"""Whole executions in this process, on every backend that needs no worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dispatchers import override, task
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.workflows import Signal, Workflow, local, publish, workflow

approval = Signal("approval", int)


@task(name="turns_here.add")
def add(left: int, right: int) -> int:
    return left + right


@task(name="turns_here.pair")
async def pair(left: int) -> tuple[int, str]:
    return left, "x"


async def rate(currency: str) -> float:
    return {"EUR": 1.5}[currency]


@workflow(name="turns_here.flow")
async def flow(number: int) -> list[float]:
    total, named = await asyncio.gather(add.step(number, right=1), pair.step(number))
    publish(stage="added", total=total)
    await asyncio.sleep(0.05)
    factor = await local(rate, "EUR")
    approved = await approval.receive()
    for _ in range(50):
        total = await add.step(total, right=1)
    return [total, named[0], factor, approved]


@contextmanager
def memory() -> Iterator[None]:
    """A queue with a worker of its own."""
    queue = MemoryDispatcher()
    worker = queue._worker(WorkerOptions(concurrency=2))
    thread = threading.Thread(target=worker.run)
    thread.start()
    with override(default=queue):
        yield
    worker.stop()
    thread.join()


@pytest.fixture(params=["inline", "thread", "asyncio", "memory"])
def backend(request) -> Iterator[str]:
    """The default dispatcher."""
    with memory() if request.param == "memory" else override(default=request.param):
        yield request.param


def started(flow: Workflow[..., Any], key: str, *args: Any) -> Any:
    flow.options(idempotency_key=key).dispatch(*args).raise_for_error()
    return flow.execution(key)


def test_an_execution_from_its_start_to_its_end(backend):
    """D1, D2: steps, a timer, a local step and a signal, without anything else being started."""
    execution = started(flow, f"whole-{backend}", 3)
    assert approval.send(flow, f"whole-{backend}", 9).ok

    assert execution.result(timeout=30) == [54, 3, 1.5, 9]
    assert execution.status() == "completed"
    assert execution.state() == {"stage": "added", "total": 4}
    assert execution.steps() == ["turns_here.add", "turns_here.pair", *["turns_here.add"] * 50]


def test_an_execution_from_an_event_loop(backend):
    """C8: starting, signalling and waiting block no loop."""
    key = f"loop-{backend}"

    async def main() -> list[float]:
        options = flow.options(idempotency_key=key)
        (await options.adispatch(number=3)).raise_for_error()
        (await approval.asend(flow, key, 9)).raise_for_error()
        return await flow.execution(key).aresult(timeout=30)

    assert asyncio.run(main()) == [54, 3, 1.5, 9]
