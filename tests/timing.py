"""Blocks that have to end in time, on a machine that does not always let them run."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from dispatchers.testing.conformance._tools import GLANCE, MARGIN, _queued, _waited, stalled


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Check that a block ends within so many seconds and the margin of C2.

    Time in which the machine did not let this process run is forgiven: what a second thread
    oversleeps meanwhile, and what the threads were ready to run and got no processor.
    """
    done, stalls = threading.Event(), list[float]()
    watcher = threading.Thread(target=_watch, args=(done, stalls), daemon=True)
    watcher.start()
    queued, began = _queued(), monotonic()
    try:
        yield
        took = monotonic() - began
    finally:
        done.set()
    watcher.join()
    late = sum(stalls) + _waited(queued)
    assert took <= seconds + MARGIN + late, f"{took:.2f} s, {late:.2f} s of them the machine's"


def _watch(done: threading.Event, stalls: list[float]) -> None:
    over, before = False, monotonic()
    while not over:
        over = done.wait(GLANCE)
        before, last = monotonic(), before
        stalls.append(stalled(before - last))
