"""Blocks that have to end in time, on a machine that does not always let them run."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from dispatchers.testing.conformance._tools import GLANCE, MARGIN, _queued, _waited


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Check that a block ends within so many seconds and the margin of C2.

    Time in which the machine did not let this process run is forgiven: what a second thread
    oversleeps meanwhile, and what the threads were ready to run and got no processor.
    """
    done, gaps = threading.Event(), [0.0]
    watcher = threading.Thread(target=_watch, args=(done, gaps), daemon=True)
    watcher.start()
    queued, began = _queued(), monotonic()
    try:
        yield
        took = monotonic() - began
    finally:
        done.set()
    watcher.join()
    late = max(gaps) + _waited(queued)
    assert took <= seconds + MARGIN + late, f"{took:.2f} s, {late:.2f} s of them the machine's"


def _watch(done: threading.Event, gaps: list[float]) -> None:
    before = monotonic()
    while not done.wait(GLANCE):
        before, last = monotonic(), before
        gaps.append(before - last - GLANCE)
    gaps.append(monotonic() - before - GLANCE)
