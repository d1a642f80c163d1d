"""Processes that are killed at random while they hand work over, and what is to be left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from dispatchers import DispatchRequest
from dispatchers.testing import processes

LANES = 3
STUCK = 60.0
"""Seconds without a single row handed over after which it counts as stuck."""


class Actor:
    """A process of a script that writes lines: started, killed, and started again.

    Args:
        folder: Where its output goes.

        script: Its code.

        arguments: Its command line.
    """

    def __init__(self, folder: Path, script: str, *arguments: str) -> None:
        self._folder, self._command = folder, [sys.executable, "-c", script, *arguments]
        self.said: list[list[str]] = []
        """The words of each line that it has written."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Start it, and wait for its first line."""
        self._out = self._folder / f"said-{uuid4().hex}"
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [*self._command, *more], stdout=out, stderr=subprocess.DEVNULL
            )
        processes.wait_until(lambda: self._out.stat().st_size > 0, "it does not begin")

    def kill(self) -> None:
        """End it by `kill -9`, if it runs, and note what it has said."""
        if self._process is None:
            return
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # The last line may be cut: what was not said is not counted.
        lines = self._out.read_text().rpartition("\n")[0].splitlines()
        self.said += [line.split() for line in lines]


def drained(held: Any) -> None:
    """Wait until nothing is held, as long as it becomes less.

    Raises:
        AssertionError: Nothing has left for a minute.
    """
    least, since = held(), monotonic()
    while least:
        sleep(0.05)
        if (count := held()) < least:
            least, since = count, monotonic()
        assert monotonic() - since < STUCK, f"{count} pieces of work do not leave"


def in_rq(port: int, queue: str) -> list[int]:
    """Return the numbers of the work in a queue of RQ, in its order."""
    from dispatchers_rq._message import body_of
    from redis import Redis

    with Redis(port=port) as client:
        ids = client.lrange(f"rq:queue:{queue}", 0, -1)
        jobs: list[Any] = [client.hgetall(f"rq:job:{each.decode()}") for each in ids]
    requests = [DispatchRequest.model_validate_json(body_of(job)) for job in jobs]
    return [int(each.payload["n"]) for each in requests]


def judge(taken: Sequence[int], arrived: Sequence[int]) -> None:
    """Check that what was taken has arrived once, and each lane in its order."""
    assert len(taken) > LANES
    assert set(taken) - set(arrived) == set(), "lost"
    assert len(set(arrived)) == len(arrived), "twice, although the queue knows the id"
    certain = set(taken)
    for lane in range(LANES):
        numbers = [n for n in arrived if n % LANES == lane and n in certain]
        assert numbers == sorted(numbers), f"lane {lane} out of order"
