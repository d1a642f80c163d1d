"""`memory` keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchRequest, ErrorCategory
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.testing import DispatcherConformance, Harness, WorkerConformance, tasks


class MemoryHarness(Harness):
    """A queue in this process."""

    without = {
        "network": "the queue is in this process",
        "stall": "a put into memory waits for nobody",
        "processes": "each process has a queue of its own",
    }

    drains_delayed = True

    def make_dispatcher(self, **options: Any) -> MemoryDispatcher:
        return MemoryDispatcher(**options)

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        full = self.dispatcher(capacity=1)
        full.dispatch(DispatchRequest(task=tasks.note.name)).raise_for_error()
        yield full, ErrorCategory.CAPACITY

    def received(self, dispatcher: Any) -> list[bytes]:
        running = [delivery.body for delivery in tuple(dispatcher._queue._claimed)]
        return [*(work.body for work in dispatcher._queue), *running]

    def run_next(self, dispatcher: Any) -> object:
        return dispatcher.step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dispatcher.dead]

    def crash(self, dispatcher: Any) -> None:
        dispatcher.abandon(dispatcher.claim())


class TestMemory(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()


class TestMemoryWorker(WorkerConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()
