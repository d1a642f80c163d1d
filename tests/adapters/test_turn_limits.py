"""Time limits of other libraries that hit a turn of a workflow, as those libraries raise them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatchers import RunSettings, catalogue, classify, override, run_envelope
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.workflows import workflow
from dispatchers.workflows._sweep import sweeper


@pytest.fixture
def by_celery() -> Iterator[Callable[[], object]]:
    """The signal of its pool, with the handler that our worker has for it."""
    delivery = pytest.importorskip("dispatchers_celery._delivery")
    before = signal.signal(signal.SIGUSR1, delivery._on_time_limit)
    yield lambda: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def by_dramatiq() -> Callable[[], object]:
    """The exception that its middleware has raised in a thread."""
    middleware: Any = pytest.importorskip("dramatiq.middleware")
    raising: Any = pytest.importorskip("dramatiq.middleware.threading")
    kind = middleware.TimeLimitExceeded
    classify(kind, "transient")  # as our worker does when it registers its tasks
    return lambda: raising.raise_thread_exception(threading.get_ident(), kind)


@pytest.mark.parametrize("limit", ["by_celery", "by_dramatiq"])
def test_a_time_limit_in_a_turn_is_no_failure_of_its_code(
    request: pytest.FixtureRequest, limit: str
) -> None:
    """D4: whatever the code makes of it is not recorded; the turn comes again."""
    interrupt = request.getfixturevalue(limit)
    left = [1]

    async def part() -> str:
        try:
            if left:
                left.pop()
                interrupt()
                for number in range(100_000):
                    str(number)
        except Exception:  # noqa: BLE001 - as code that means to go on
            return "it failed"
        return "went on"

    @workflow(name="limits.flow")
    async def flow() -> str:
        (found,) = await asyncio.gather(part(), return_exceptions=True)
        return found if isinstance(found, str) else "it failed"

    queue = MemoryDispatcher()
    with override({"workflows": "memory"}), override(default=queue):
        flow.options(idempotency_key=limit).dispatch().raise_for_error()
        start = queue.claim()
        assert start is not None
        outcome = run_envelope(start.body, settings=RunSettings(interrupts=True))
        status = flow.execution(limit).status()
        queue.abandon(start)
        queue.run_all()
        result = flow.execution(limit).result(timeout=1)
    sweeper.stop()
    catalogue.remove(flow)
    catalogue.remove(flow.turns)

    assert outcome.exception is not None
    assert (status, result) == ("running", "went on")
