"""`spill` keeps the contract while its queue is there; tests/core/backends has the rest."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchRequest, DispatchStatus, ErrorCategory
from dispatchers import RejectedError as Rejected
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing import DispatcherConformance, Harness, Journal, tasks
from dispatchers.testing.conformance._never_raises import every_way
from dispatchers.testing.conformance._tools import send

from .holding import HoldingHarness


class Queue(MemoryDispatcher):
    """A queue that may be away."""

    is_away = False

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Any:
        if self.is_away:
            raise Rejected(ErrorCategory.UNAVAILABLE, "the queue is away")
        return super()._send(request, body, timeout=timeout)


class SpillHarness(HoldingHarness):
    """A file before a queue in this process, which is there."""

    queue = Queue
    held = "SELECT body FROM held ORDER BY seq"

    def make_before(self, to: BaseDispatcher, /, **options: Any) -> SpillDispatcher:
        return SpillDispatcher(to=to, path=self.path, **options)

    def received(self, dispatcher: Any) -> list[bytes]:
        # Before the first spilled work there is no table.
        dispatcher.held._prepare(5)
        return super().received(dispatcher)

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        dispatcher.held.is_empty()
        dispatcher.to.is_away = True
        with super().stalled(dispatcher):
            yield

    @contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Generator[None]:
        with pytest.MonkeyPatch.context() as patch, super().broken(dispatcher.to, exc):
            # Without the file, which would take what the queue does not.
            patch.setattr(dispatcher, "_ways", dispatcher._ways[:1])
            yield


class TestSpill(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SpillHarness(tmp_path / "spill.db")

    def test_a_response_names_what_it_answers(self, harness: Harness, journal: Journal) -> None:
        """C3, F3: the answer names the dispatcher behind it, which has the work."""
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)

        for answer in every_way(harness, dispatcher, request).values():
            assert (answer.request_id, answer.request) == (request.id, request)
            assert (answer.dispatcher, answer.backend) == ("queue", "memory")

    def test_a_doubt_that_raises_is_unknown(self, harness: Harness, journal: Journal) -> None:
        """C1, C3: where `_maybe_sent` of the dispatcher behind it fails the answer is UNKNOWN."""
        dispatcher = harness.dispatcher()
        vars(dispatcher.to)["_maybe_sent"] = None  # type: ignore[attr-defined]

        with harness.broken(dispatcher, RuntimeError("boom")):
            response = send(dispatcher, journal)

        assert response.status is DispatchStatus.UNKNOWN
