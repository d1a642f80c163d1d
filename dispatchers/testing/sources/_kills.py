"""Cases of a forwarder that is killed or paused at any line: nothing is lost."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from dispatchers.forwarding import Forwarder
from dispatchers.testing import processes
from dispatchers.testing._trap import Trap

from . import _workers
from ._harness import PutRow, SourceHarness
from ._tools import (
    Backend,
    FileBackend,
    drained,
    in_lanes,
    lanes_in_order,
    noted,
    poison,
    refusing_once,
    watched,
)

MOST = 5000
"""More lines than are passed on the way of a few rows."""
DEARER = 7
"""A process costs a lease, so it is killed at each seventh of the lines that are tried."""


class KilledError(BaseException):
    """A kill that unwinds the stack, as KeyboardInterrupt and SystemExit do."""


class Kills:
    """S29 to S31."""

    @pytest.mark.dispatchers_unchecked
    def test_interrupted_at_any_line_it_loses_nothing(self, harness: SourceHarness) -> None:
        """S29, F7, F8: the same process goes on, by another forwarder."""
        source, files = harness.source(), watched(harness.source())
        for line in range(1, MOST, harness.every):
            put, backend = _some(line), Backend(refusing_once())
            harness.put(put)
            known = len(harness.dead())
            with Trap(files, line, _interrupt) as trap, suppress(KilledError):
                Forwarder(source, backend).step()
            drained(Forwarder(source, backend))

            _all_arrived(backend.took, put, harness.dead()[known:], line)
            source.leave()
            if not trap.sprung:
                assert line > harness.every, "no line was passed"
                return
        raise AssertionError(f"a step passes more than {MOST} lines")

    @pytest.mark.dispatchers_unchecked
    def test_killed_at_any_line_it_loses_nothing(
        self, harness: SourceHarness, tmp_path: Path
    ) -> None:
        """S30, F7, F8, O3, O11: by SIGKILL; another process takes over and goes on."""
        harness.need("processes")
        source = harness.source()
        with _workers.Killer(harness.opener) as killer:
            for line in range(1, MOST, DEARER * harness.every):
                put, notes = _some(line), tmp_path / str(line)
                harness.put(put)
                known = len(harness.dead())
                killed = killer.killed_at(line, notes)
                drained(Forwarder(source, FileBackend(notes)))
                source.leave()

                _all_arrived(noted(notes), put, harness.dead()[known:], line)
                if not killed:
                    assert line > 1, "no line was passed"
                    return
        raise AssertionError(f"a step passes more than {MOST} lines")

    def test_a_paused_process_loses_nothing(self, harness: SourceHarness, tmp_path: Path) -> None:
        """S31, O7: another takes over meanwhile; then both have handed some over, under one id."""
        harness.need("leader", "processes")
        put = in_lanes("a1", "b1", "a2", "b2", "c1")
        harness.put(put)
        notes, source = tmp_path / "notes", harness.source()
        act = partial(_workers.forward_slowly, notes=notes)
        with _workers.others(harness.opener, act, 1) as (paused,):
            paused.begin()
            assert paused.hear() == "called"
            processes.pause(paused.pid)
            drained(Forwarder(source, FileBackend(notes)))
            processes.resume(paused.pid)
            paused.line.send("go on")
            paused.hear()

        assert source.is_empty()
        lanes_in_order(noted(notes), put)
        assert harness.dead() == []


def _some(line: int) -> list[PutRow]:
    """Rows of two lanes, one of them poison, with ids of their own."""
    rows = [*in_lanes(*(f"{lane}{line}-{n}" for n in range(3) for lane in "ab"))]
    return [*rows[:3], poison(f"p{line}", "a"), *rows[3:]]


def _interrupt() -> None:
    raise KilledError


def _all_arrived(arrived: list[str], put: list[PutRow], dead: list[bytes], line: int) -> None:
    lost = [each for each in put if each.id not in arrived and each.body not in dead]
    assert not lost, f"interrupted at line {line}: {[each.id for each in lost]} lost"
    lanes_in_order(arrived, [each for each in put if each.id in arrived])
    assert {each.id for each in put if each.body in dead} == {put[3].id}
