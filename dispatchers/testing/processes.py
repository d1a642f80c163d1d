"""Pause, resume and kill a process with all that it has started; POSIX only.

A signal takes effect some time after it was sent, and for each thread on its own: on a busy machine
a server that was sent SIGSTOP goes on answering. These functions return when all have obeyed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

__all__ = ["family", "kill", "pause", "resume", "wait_until"]

POLL_INTERVAL = 0.002
TIMEOUT = 60.0
"""Seconds until a process that does not obey is an error: only disks that hang take so long."""
PROC = Path("/proc")
STOPPED, DEAD = frozenset("Tt"), frozenset("ZXx")
"""Letters of proc(5); a zombie does nothing more, though its parent may never collect it."""


class Process(NamedTuple):
    """One process of the machine, as it was when it was looked at."""

    pid: int
    parent: int
    session: int
    states: frozenset[str]
    """The first letter of the state of each thread."""
    started: str
    """Tells it from a later process with the same number."""

    @property
    def is_dead(self) -> bool:
        return self.states <= DEAD

    @property
    def is_stopped(self) -> bool:
        return self.states <= STOPPED | DEAD


def pause(pid: int) -> None:
    """Stop a process and its descendants (SIGSTOP); return when every thread has stopped.

    Raises:
        RuntimeError: One still ran after a minute.
    """

    def stopped() -> bool:
        # Anew in each round: one that was not stopped yet may have started another.
        running = [each for each in family(pid) if not each.is_stopped]
        _signal(running, signal.SIGSTOP)
        return not running  # a process family that has stopped starts no further process

    wait_until(stopped, f"process {pid} and its descendants did not stop")


def resume(pid: int) -> None:
    """Continue a process and its descendants (SIGCONT).

    Raises:
        RuntimeError: One was still stopped after a minute.
    """

    def continued() -> bool:
        stopped = [each for each in family(pid) if each.states & STOPPED]
        _signal(stopped, signal.SIGCONT)
        return not stopped

    wait_until(continued, f"process {pid} and its descendants did not continue")


def kill(members: Iterable[Process]) -> None:
    """Kill what is left of a family (SIGKILL); return when all of them are dead.

    Raises:
        RuntimeError: One was still alive after a minute.
    """
    # With the start time: the system may give the number to another process meanwhile.
    known = {(each.pid, each.started) for each in members}

    def dead() -> bool:
        left = [each for each in _processes() if (each.pid, each.started) in known]
        alive = [each for each in map(_with_threads, left) if not each.is_dead]
        _signal(alive, signal.SIGKILL)
        return not alive

    wait_until(dead, f"processes {sorted(pid for pid, _ in known)} did not die")


def family(pid: int) -> list[Process]:
    """Return a process, the members of its session and all descendants, as far as they live."""
    found: dict[int, Process] = {}
    table = {each.pid: each for each in _processes()}
    leads_session = pid in table and table[pid].session == pid

    def belongs(each: Process) -> bool:
        in_session = leads_session and each.session == pid
        return each.pid == pid or in_session or each.parent in found

    # Until nothing is added: a grandchild is found only once its parent is.
    while more := [e for e in table.values() if e.pid not in found and belongs(e)]:
        found.update((each.pid, each) for each in more)
    return [each for each in map(_with_threads, found.values()) if not each.is_dead]


def wait_until(true: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is true.

    Raises:
        RuntimeError: It was not after a minute; `otherwise` is the message.
    """
    until = monotonic() + TIMEOUT
    while not true():
        if monotonic() > until:
            raise RuntimeError(otherwise)
        sleep(POLL_INTERVAL)


def _signal(processes: Iterable[Process], number: int) -> None:
    for each in processes:
        # It has ended between the look and the signal.
        with suppress(ProcessLookupError):
            os.kill(each.pid, number)


def _processes() -> Iterator[Process]:
    if not PROC.joinpath("self/task").exists():
        yield from _listed()
        return
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (found := _read(entry)):
            yield found


def _read(entry: Path) -> Process | None:
    """Return what Linux says of a process; None if it has ended meanwhile."""
    try:
        fields = _fields(entry)
    except OSError:
        return None
    return Process(
        int(entry.name), int(fields[1]), int(fields[3]), frozenset(fields[0]), fields[19]
    )


def _with_threads(process: Process) -> Process:
    """Add the states of the threads, which obey one by one."""
    states: set[str] = set(process.states)
    with suppress(OSError):  # it has ended, or this is not Linux
        for task in PROC.joinpath(str(process.pid), "task").iterdir():
            with suppress(OSError):
                states.add(_fields(task)[0])
    return process._replace(states=frozenset(states))


def _fields(entry: Path) -> list[str]:
    """Return the fields after the name, which may contain blanks and parentheses."""
    return entry.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()


def _listed() -> Iterator[Process]:
    """Return what `ps` says, where the kernel has no folder of processes: macOS, the BSDs."""
    command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,state=,lstart="]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in filter(str.strip, said.splitlines()):
        pid, parent, group, state, started = line.split(None, 4)
        # The group stands in for the session, which not every `ps` tells.
        yield Process(int(pid), int(parent), int(group), frozenset(state[0]), started)
