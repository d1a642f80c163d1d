"""The forwarder killed at every line: nothing is lost, order is kept (F7, F8; O3, O11)."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dispatchers import DispatchRequest, forwarding
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.forwarding import Step
from dispatchers.sqlite import _held

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
WATCHED = {forwarding.__file__, _held.__file__}
POISON = 3
"""The row that the queue refuses."""


def spill_at(folder: Path) -> SpillDispatcher:
    """A spill before a durable queue; its lease has run out for whoever comes next."""
    queue = SQLiteDispatcher(path=str(folder / "queue.db"), breaker=False, queues=["a", "b"])
    spill = SpillDispatcher(to=queue, path=str(folder / "spill.db"))
    spill.forwarder.start = lambda: None  # type: ignore[method-assign]
    return spill


def filled(folder: Path) -> list[DispatchRequest]:
    """Hold six pieces of work of two lanes, one of them poison."""
    spill = spill_at(folder)
    requests = [
        DispatchRequest(task="t", payload={"n": n}, queue="ab"[n % 2], id=f"r{n}") for n in range(6)
    ]
    rows = [
        _held.NewRow(r.id, r.task, r.queue or "", _body(r, n), deduplicate=False)
        for n, r in enumerate(requests)
    ]
    spill.held.put(rows, timeout=5)
    spill.close(5)
    spill.to.close(5)
    return requests


def _body(request: DispatchRequest, number: int) -> bytes:
    return b"no envelope" if number == POISON else request.model_dump_json().encode()


def drained(spill: SpillDispatcher) -> None:
    while spill.forwarder.step() is not Step.EMPTY:
        pass


def killed_at(folder: Path, line: int) -> bool:
    """Drain in a process that is killed before its `line`-th line; false where it ended first."""
    pid = os.fork()
    if not pid:
        try:
            _trace(line)
            drained(spill_at(folder))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _trace(line: int) -> None:
    seen = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        nonlocal seen
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def recovered(folder: Path) -> SpillDispatcher:
    """Drain what is left, as a process does that has seen no sign of life for long enough."""
    spill = spill_at(folder)
    skew = iter([0.0])
    spill.held._watch._clock = lambda: time.monotonic() + next(skew, 1000.0)
    spill.forwarder.step()
    drained(spill)
    return spill


def _lines(folder: Path, first: int, step: int) -> Iterator[int]:
    line = first
    while True:
        yield line
        line += step


@pytest.mark.parametrize(
    ("first", "step"), [(1, 23), pytest.param(1, 1, marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_killed_at_any_line_it_loses_nothing(tmp_path: Path, first: int, step: int) -> None:
    """F7, F8, O3, O11: each piece arrives once and in order; the poison is a dead letter."""
    for line in _lines(tmp_path, first, step):
        folder = tmp_path / str(line)
        folder.mkdir()
        requests = filled(folder)
        if not killed_at(folder, line):
            assert line > 100, "the lines of the forwarder are not seen"
            return
        spill = recovered(folder)
        with spill.to._store.database.transaction(timeout=5) as connection:  # type: ignore[attr-defined]
            found = [row[0] for row in connection.execute("SELECT id FROM jobs ORDER BY seq")]
        letters = spill._dead_letters().list()
        left = spill.held.totals(timeout=5)
        spill.close(5)
        spill.to.close(5)

        wanted = [each.id for n, each in enumerate(requests) if n != POISON]
        assert sorted(found) == wanted, line
        assert [i for i in found if int(i[1]) % 2 == 0] == ["r0", "r2", "r4"], line
        assert [i for i in found if int(i[1]) % 2] == ["r1", "r5"], line
        assert (left, len(letters)) == ((0, 0), 1), line
