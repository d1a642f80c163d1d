"""Timing two things in turns, so that a noisy machine is noisy for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Call = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """One row of the report."""

    case: str
    limit: float
    measured: float
    detail: str
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.measured <= self.limit


def once(call: Call, calls: int) -> float:
    """Seconds per call, the mean of one round."""
    started = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - started) / calls


def interleaved(*calls: Call, rounds: int, each: int) -> list[float]:
    """The median seconds per call of each, over rounds in which all take a turn."""
    for call in calls:
        once(call, max(each // 10, 1))
    times = [[once(call, each) for call in calls] for _ in range(rounds)]
    return [median(column) for column in zip(*times, strict=True)]


def ratio(case: str, limit: float, ours: float, peer: float, unit: float = 1e6) -> Figure:
    """A figure of ours over the peer, in microseconds unless told otherwise."""
    name = {1e6: "us", 1e3: "ms", 1.0: "s"}[unit]
    detail = f"{ours * unit:.2f} {name} over {peer * unit:.2f} {name}"
    return Figure(case, limit, ours / peer, detail)
