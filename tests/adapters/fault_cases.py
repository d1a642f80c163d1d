"""Cases of the faults of a broker, for the tests of adapters: in time, truly, and over with it."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers import BaseDispatcher, DispatchResponse, ErrorCategory
from dispatchers._runtime import guard_pool as _guard_threads
from dispatchers.testing import tasks
from dispatchers.testing.conformance._tools import PATIENCE, answered
from dispatchers.testing.faults import FAULTS, Fault, Scene

__all__ = [
    "BREAKER",
    "DEADLINE",
    "OF_NAMES",
    "RedisFaults",
    "dispatched",
    "from_many_threads",
    "heals",
    "keeps_its_word",
    "quiet",
    "said",
    "scene",
]

DEADLINE = 0.5
THREADS = 50
BREAKER = {"failures": 3, "reset": 0.3}
OF_NAMES = ("no such name", "silent name server")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of failures are not told, and threads with nothing to do end at once."""
    caplog.set_level(logging.CRITICAL + 1, "dispatchers")
    monkeypatch.setattr(_guard_threads, "IDLE_SECONDS", 0.1)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """What one case left to run out in the background does not take part in the next."""
    before = held()
    yield
    given_back(before)


def dispatched(dispatcher: BaseDispatcher) -> DispatchResponse:
    return tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")


def connected(dispatcher: BaseDispatcher) -> bool:
    """It works; the first connection gets what a busy machine needs for it."""
    return tasks.note.options(dispatcher=dispatcher, deadline=PATIENCE).dispatch("/nowhere").ok


def from_many_threads(dispatcher: BaseDispatcher) -> list[DispatchResponse]:
    """One call of each of fifty threads, all at once and within the deadline."""
    found: list[DispatchResponse] = []
    barrier = threading.Barrier(THREADS + 1)

    def call() -> None:
        barrier.wait()
        found.append(dispatched(dispatcher))

    threads = [threading.Thread(target=call) for _ in range(THREADS)]
    for thread in threads:
        thread.start()

    def release() -> None:
        barrier.wait()
        for thread in threads:
            thread.join()

    answered(DEADLINE, release)
    return found


def said(responses: list[DispatchResponse], expected: Fault, *more: ErrorCategory) -> set[object]:
    """What was answered that should not have been."""
    return {
        (response.status, response.error and response.error.category)
        for response in responses
        if not ((response.error and response.error.category in more) or _fits(response, expected))
    }


def _fits(response: DispatchResponse, expected: Fault) -> bool:
    return response.status in expected.statuses and (
        response.error is None or response.error.category in expected.categories
    )


def held() -> tuple[int, int]:
    """Threads of this process, and its sockets."""
    links = (entry for entry in Path("/proc/self/fd").iterdir())
    return threading.active_count(), sum(map(_is_socket, links))


def _is_socket(entry: Path) -> bool:
    try:
        return str(entry.readlink()).startswith("socket:")
    except OSError:  # closed meanwhile
        return False


def given_back(before: tuple[int, int]) -> bool:
    """Threads and sockets are what they were; one thread waits for more to do."""
    until = time.monotonic() + 15  # for names that are still being looked up
    while time.monotonic() < until:
        threads, sockets = held()
        if threads <= before[0] + 1 and sockets <= before[1]:
            return True
        time.sleep(0.05)
    return False


def healed(dispatcher: BaseDispatcher) -> bool:
    """It works again; a server gets a moment for what has waited for it."""
    until = time.monotonic() + 5
    while not dispatched(dispatcher).ok:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


Make = Callable[..., BaseDispatcher]
"""Makes a dispatcher of a server's address and options."""


def keeps_its_word(scene: Scene, fault: str, make: Make) -> None:
    """Put a dispatcher into a fault, without a breaker."""
    expected, before = FAULTS[fault], held()
    dispatcher = make(scene.url_for(fault), breaker=False)
    assert fault in OF_NAMES or connected(dispatcher)

    scene.begin(fault)
    try:
        answers = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(3)]
        crowd = from_many_threads(dispatcher)
    finally:
        scene.end()
    works = fault in OF_NAMES or healed(dispatcher)
    dispatcher.close()

    assert not said(answers, expected)
    assert not said(crowd, expected, ErrorCategory.TIMEOUT)  # fifty at once may run out of time
    assert works
    assert given_back(before), f"{held()} threads and sockets, {before} before"


def heals(scene: Scene, fault: str, make: Make) -> None:
    """Put a dispatcher with a breaker into a fault, and take it out."""
    expected = FAULTS[fault]
    dispatcher = make(scene.url_for(fault), breaker=BREAKER)
    assert fault in OF_NAMES or connected(dispatcher)

    scene.begin(fault)
    try:
        answers = [answered(DEADLINE, lambda: dispatched(dispatcher)) for _ in range(5)]
    finally:
        scene.end()
    time.sleep(BREAKER["reset"])
    works = fault in OF_NAMES or healed(dispatcher)
    dispatcher.close()

    assert not said(answers, expected, ErrorCategory.CIRCUIT_OPEN)
    assert works


@pytest.fixture(scope="module")
def scene(_servers: None) -> Iterator[Scene]:
    """One Redis for all cases of a module."""
    with Scene("redis", silence=2.0) as found:
        yield found


class RedisFaults(ABC):
    """Every fault of Redis, under the settings of another package: as under `rq`.

    A module of tests imports `quiet` and `scene` besides.
    """

    @staticmethod
    @abstractmethod
    def made(url: str, **options: Any) -> BaseDispatcher:
        """A dispatcher of settings that name this server."""

    every_fault = pytest.mark.parametrize(
        "fault", [name for name, each in FAULTS.items() if "redis" in each.kinds]
    )

    @every_fault
    def test_a_fault_is_answered_in_time_and_truly(self, scene: Scene, fault: str) -> None:
        """C2, C3, C4: the first, the next and fifty at once; then it works, and nothing is left."""
        keeps_its_word(scene, fault, self.made)

    @every_fault
    def test_with_a_breaker_it_heals_within_its_reset_time(self, scene: Scene, fault: str) -> None:
        """C4: after failures in a row nobody waits any more, and it is tried again by itself."""
        heals(scene, fault, self.made)
