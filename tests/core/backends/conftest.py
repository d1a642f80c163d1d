"""Tasks that note what they see, and ways to wait for it without sleeping."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from dispatchers import BaseDispatcher

GENEROUS = 30.0


def until(condition: Callable[[], object]) -> None:
    """Return once `condition()` is true; for what nobody announces."""
    end = monotonic() + GENEROUS
    while not condition():
        assert monotonic() < end
        sleep(0.001)


class Seen:
    """What was noted, in order, from whatever thread."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, item: Any) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Any]:
        """The items, once there are `count` of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.items) >= count, GENEROUS), self.items
            return list(self.items)


class Gate:
    """Holds a handler until it is opened, and tells when it has come."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self) -> None:
        self._arrived.release()
        assert self._opened.wait(GENEROUS)

    def arrived(self) -> None:
        assert self._arrived.acquire(timeout=GENEROUS)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def made(gate: Gate) -> Iterator[Callable[[BaseDispatcher], Any]]:
    """Closes, at the end of the test, the dispatchers it is given."""
    dispatchers: list[BaseDispatcher] = []

    def note(dispatcher: BaseDispatcher) -> BaseDispatcher:
        dispatchers.append(dispatcher)
        return dispatcher

    yield note

    gate.open()
    for dispatcher in dispatchers:
        dispatcher.close(GENEROUS)


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a script to its end in an interpreter of its own."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "script.py"
        file.write_text(script)
        return subprocess.run(
            [sys.executable, str(file)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
