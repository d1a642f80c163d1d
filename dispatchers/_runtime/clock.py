"""The clock of executions: the system's, unless a test has put another in its place."""

from __future__ import annotations

import time as system
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

__all__ = ["is_moved_by_hand", "monotonic", "moved_by_hand", "now", "time"]

_by_hand: list[Callable[[], float]] = []
"""The clock in place of the system's."""


def time() -> float:
    """Return seconds since the epoch."""
    return _by_hand[-1]() if _by_hand else system.time()


def monotonic() -> float:
    """Return seconds that no correction of the system's time changes, to measure spans."""
    return _by_hand[-1]() if _by_hand else system.monotonic()


def now() -> datetime:
    """Return the current instant, aware UTC."""
    return datetime.fromtimestamp(_by_hand[-1](), UTC) if _by_hand else datetime.now(UTC)


def is_moved_by_hand() -> bool:
    """Tell whether time passes by what a test does only: nothing then may wait for it."""
    return bool(_by_hand)


@contextmanager
def moved_by_hand(clock: Callable[[], float]) -> Generator[None]:
    """Use a clock in place of the system's, in the whole process.

    Args:
        clock: Returns seconds since the epoch.
    """
    _by_hand.append(clock)
    try:
        yield
    finally:
        _by_hand.remove(clock)
