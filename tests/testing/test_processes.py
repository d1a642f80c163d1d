"""Processes that are paused, resumed and killed with all that they have started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatchers.testing import processes
from dispatchers.testing.processes import Process, family, kill, pause, resume, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")

BUSY = """
import os, subprocess, sys, threading, time

def spin():
    while True:
        sum(range(1000))

for _ in range(4):
    threading.Thread(target=spin, daemon=True).start()
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)
os.write(1, b"ready" + bytes([10]))
time.sleep(600)
"""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[int]:
    """A process with threads that work, whose child, in a session of its own, does the same."""
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    command = [sys.executable, str(script), str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
            yield process.pid
        finally:
            kill(family(process.pid))


def states(pid: int) -> list[str]:
    """The state of every thread of the family, as the kernel tells it."""
    return [
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0]
        for member in family(pid)
        for task in Path(f"/proc/{member.pid}/task").iterdir()
    ]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_pause_is_in_force_when_it_returns(busy: int) -> None:
    """Every thread of every process has stopped, again and again."""
    for _ in range(5):
        pause(busy)
        assert set(states(busy)) == {"T"}
        resume(busy)
        assert "T" not in states(busy)
    assert len(states(busy)) == 10


def test_a_family_is_what_a_process_has_started(busy: int) -> None:
    """Descendants count, also in sessions of their own; others do not."""
    members = {each.pid: each.parent for each in family(busy)}

    assert len(members) == 2
    assert members.pop(busy) == os.getpid()
    assert list(members.values()) == [busy]


def test_killed_is_dead_when_it_returns(busy: int) -> None:
    """No member of the family lives on, paused ones included."""
    members = family(busy)
    pause(busy)

    kill(members)

    left = {each.pid for each in processes._processes() if not each.is_dead}
    assert not left & {each.pid for each in members}


def test_what_has_ended_is_no_error() -> None:
    """A process that is not there has nothing to be waited for."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    pause(process.pid)
    resume(process.pid)
    assert family(process.pid) == []


def test_a_later_process_with_the_same_number_is_left_alone(busy: int) -> None:
    """A number alone names no process."""
    kill([Process(busy, 0, 0, frozenset("S"), "another time")])

    assert family(busy)


def test_what_does_not_come_true_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait ends, with words."""
    monkeypatch.setattr(processes, "TIMEOUT", 0.01)

    with pytest.raises(RuntimeError, match="it did not stop"):
        wait_until(lambda: False, "it did not stop")


def test_without_a_folder_of_processes_ps_is_asked(
    busy: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS: the same family, and a pause that is in force."""
    expected = {each.pid for each in family(busy)}

    with monkeypatch.context() as patch:
        patch.setattr(processes, "PROC", tmp_path)
        pause(busy)
        paused = family(busy)

    assert {each.pid for each in paused} == expected
    assert all(each.is_stopped for each in paused)
