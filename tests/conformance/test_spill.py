"""`spill` keeps the contract while its queue is there; tests/core/backends has the rest."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DispatchRequest, DispatchStatus, ErrorCategory
from dispatchers import RejectedError as Rejected
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing import DispatcherConformance, Harness, Journal, tasks
from dispatchers.testing.conformance._never_raises import every_way
from dispatchers.testing.conformance._tools import send


class Queue(MemoryDispatcher):
    """A queue that may be away."""

    is_away = False

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Any:
        if self.is_away:
            raise Rejected(ErrorCategory.UNAVAILABLE, "the queue is away")
        return super()._send(request, body, timeout=timeout)


class SpillHarness(Harness):
    """A file before a queue in this process, which is there."""

    without = {
        "network": "the queue is in this process",
        "processes": "each process has a queue of its own",
    }

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spill.db"

    def make_dispatcher(self, **options: Any) -> SpillDispatcher:
        known = Queue.Options.model_fields
        queue = Queue(**{**{k: v for k, v in options.items() if k in known}, "alias": "queue"})
        for name in ("waive", "capacity"):
            options.pop(name, None)
        self.keep(queue)
        spill = SpillDispatcher(to=queue, path=str(self.path), **options)
        spill.forwarder.start = lambda: None  # type: ignore[method-assign]
        return spill

    def received(self, dispatcher: Any) -> list[bytes]:
        queue = dispatcher.to._queue
        dispatcher.held._prepare(5)
        with closing(sqlite3.connect(self.path)) as connection:
            held = [body for (body,) in connection.execute("SELECT body FROM held ORDER BY seq")]
        return [
            *held,
            *(work.body for work in queue),
            *(each.body for each in tuple(queue._claimed)),
        ]

    def run_next(self, dispatcher: Any) -> object:
        dispatcher.forwarder.step()
        return dispatcher.to.step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dispatcher.to.dead]

    def crash(self, dispatcher: Any) -> None:
        dispatcher.forwarder.step()
        dispatcher.to.abandon(dispatcher.to.claim())

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        dispatcher.held.is_empty()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            dispatcher.to.is_away = True
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    @contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Generator[None]:
        with pytest.MonkeyPatch.context() as patch, super().broken(dispatcher.to, exc):
            # Without the file, which would take what the queue does not.
            patch.setattr(dispatcher, "_ways", dispatcher._ways[:1])
            yield


class TestSpill(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SpillHarness(tmp_path)

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
