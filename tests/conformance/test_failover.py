"""`failover` keeps the contract, with a first member that takes nothing."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
)
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.testing import DispatcherConformance, Harness, Journal, tasks
from dispatchers.testing.conformance._never_raises import every_way
from dispatchers.testing.conformance._tools import send


class Down(BaseDispatcher):
    """A backend that is never there, and could do everything."""

    name = "down"
    contract = 1
    capabilities = Capabilities(
        delay=True, priority=True, deduplicate=True, queues=True, retries=True, confirmed=True
    )

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Any:
        raise RejectedError(ErrorCategory.UNAVAILABLE, "nothing is there")

    def _category(self, exc: Exception) -> None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return False


class FailoverHarness(Harness):
    """A member that is down, and a queue in this process."""

    without = {
        "network": "the queue is in this process",
        "stall": "a put into memory waits for nobody",
        "processes": "each process has a queue of its own",
    }

    def make_dispatcher(self, **options: Any) -> FailoverDispatcher:
        known = MemoryDispatcher.Options.model_fields
        memory = MemoryDispatcher(
            **{**{k: v for k, v in options.items() if k in known}, "alias": "queue"}
        )
        deadline = options.get("deadline", 2.0)
        down = Down(alias="gone", breaker=False, deadline=deadline, waive=options.pop("waive", ()))
        options.pop("capacity", None)
        self.keep(memory)
        return FailoverDispatcher(to=[down, memory], **options)

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        full = self.dispatcher(capacity=1)
        full.dispatch(DispatchRequest(task=tasks.note.name)).raise_for_error()
        yield full, ErrorCategory.CAPACITY

    def received(self, dispatcher: Any) -> list[bytes]:
        queue = dispatcher.members[1]._queue
        return [*(work.body for work in queue), *(each.body for each in tuple(queue._claimed))]

    def run_next(self, dispatcher: Any) -> object:
        return dispatcher.members[1].step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dispatcher.members[1].dead]

    def crash(self, dispatcher: Any) -> None:
        memory = dispatcher.members[1]
        memory.abandon(memory.claim())

    @contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Generator[None]:
        with super().broken(dispatcher.members[1], exc):
            yield


class TestFailover(DispatcherConformance):
    @pytest.fixture
    def harness(self) -> Harness:
        return FailoverHarness()

    def test_a_response_names_what_it_answers(self, harness: Harness, journal: Journal) -> None:
        """C3, F3: the answer names the member that has the work, and those that rejected it."""
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            assert (answer.request_id, answer.request) == (request.id, request)
            assert (answer.dispatcher, answer.backend) == ("queue", "memory")
            assert [each.dispatcher for each in answer.passed] == ["gone"]
            assert answer.passed[0].error.category is ErrorCategory.UNAVAILABLE
            assert answer.elapsed >= 0

    def test_a_doubt_that_raises_is_unknown(self, harness: Harness, journal: Journal) -> None:
        """C1, C3: where `_maybe_sent` of a member fails the answer is UNKNOWN."""
        dispatcher = harness.dispatcher()
        vars(dispatcher.members[1])["_maybe_sent"] = None  # type: ignore[attr-defined]

        with harness.broken(dispatcher, RuntimeError("boom")):
            response = send(dispatcher, journal)

        assert response.status is DispatchStatus.UNKNOWN
