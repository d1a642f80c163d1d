"""The guard around a no-op, over a `ThreadPoolExecutor(1)` that does the same.

Run with `python benchmarks/bench_guard.py [rounds]`. The two take turns in one process, so that a
noisy machine is noisy for both; the figure is the ratio of their medians.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

from dispatchers._guard import Guard

CALLS = 1000
LIMIT = 0.85


def nothing() -> None:
    pass


def microseconds(call: Callable[[], object]) -> float:
    """The mean of one round of calls."""
    started = perf_counter()
    for _ in range(CALLS):
        call()
    return (perf_counter() - started) / CALLS * 1e6


def measure(rounds: int = 30) -> tuple[float, float]:
    """The medians of the guard and of its peer, in microseconds per call."""
    guard = Guard("bench")
    with ThreadPoolExecutor(1) as pool:
        pairs = [
            (
                microseconds(lambda: guard.call(nothing, timeout=2.0)),
                microseconds(lambda: pool.submit(nothing).result()),
            )
            for _ in range(rounds)
        ]
    guard.close(1.0)
    return median(ours for ours, _ in pairs), median(peers for _, peers in pairs)


if __name__ == "__main__":
    ours, peers = measure(*map(int, sys.argv[1:]))
    print(f"guard {ours:.1f} us, executor {peers:.1f} us, ratio {ours / peers:.2f} <= {LIMIT}")
