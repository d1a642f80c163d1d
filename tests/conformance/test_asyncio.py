"""`asyncio` keeps the contract, with a loop that lives on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dispatchers._stores.loading import dead_letters
from dispatchers.backends.asyncio import AsyncioDispatcher
from dispatchers.testing import DispatcherConformance, Harness, Journal

T = TypeVar("T")
FORKED = "an event loop does not survive a fork: the child's work needs a loop of the child's"


class AsyncioHarness(Harness):
    """A loop on a thread of its own."""

    without = {
        "received": "work is run as it comes",
        "stepping": "work is run as it comes",
        "crash": "work dies with its process",
        "network": "the work is in this process",
        "stall": "a loop takes work without waiting",
        "processes": "each process has loops of its own",
    }

    def __init__(self, folder: Path) -> None:
        self.letters = f"sqlite:{folder / 'dead.db'}"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def make_dispatcher(self, **options: Any) -> AsyncioDispatcher:
        return AsyncioDispatcher(loop=self.loop, **{"dead_letters": self.letters, **options})

    def run_next(self, dispatcher: Any) -> None:
        """The loop does."""

    def run_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def dead(self, dispatcher: Any) -> list[bytes]:
        del dispatcher
        return [letter.body for letter in dead_letters(self.letters).list()]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(_quiet(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def _quiet() -> None:
    """Nothing is left on the running loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestAsyncio(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return AsyncioHarness(tmp_path)

    @pytest.mark.xfail(reason=FORKED)
    def test_a_forked_child_and_its_parent_both_work(
        self, harness: Harness, journal: Journal
    ) -> None:
        super().test_a_forked_child_and_its_parent_both_work(harness, journal)

    @pytest.mark.xfail(reason=FORKED)
    def test_a_forked_child_and_its_parent_dispatch_at_once(
        self, harness: Harness, journal: Journal
    ) -> None:
        super().test_a_forked_child_and_its_parent_dispatch_at_once(harness, journal)

    @pytest.mark.xfail(reason=FORKED)
    def test_a_child_forked_during_a_dispatch_works(
        self, harness: Harness, journal: Journal
    ) -> None:
        super().test_a_child_forked_during_a_dispatch_works(harness, journal)

    @pytest.mark.xfail(reason=FORKED)
    def test_a_signal_handler_may_dispatch(self, harness: Harness, journal: Journal) -> None:
        super().test_a_signal_handler_may_dispatch(harness, journal)

    @pytest.mark.xfail(reason=FORKED)
    def test_a_signal_handler_may_dispatch_beside_others(
        self, harness: Harness, journal: Journal
    ) -> None:
        super().test_a_signal_handler_may_dispatch_beside_others(harness, journal)
