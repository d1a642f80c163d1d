"""Other processes in the cases of suites; each opens what it uses for itself."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

Act = Callable[..., Any]
"""An act of another process: it gets what was opened, the line to the case and its index.

A function of a module, or a `functools.partial` of one: other processes get it pickled.
"""

PATIENCE = 30.0
"""Seconds that a case waits for a forked child; four times that for a spawned process."""
POLL = 0.01

SILENT = (
    "another process ended before it had anything to say; its error is in the captured stderr. If"
    " it cannot import the module of `opener`: pytest's `pythonpath` must name its folder"
)


class Other:
    """Another process, which carries out one act after it was told to begin."""

    def __init__(self, opener: Callable[[], object], act: Act, index: int = 0) -> None:
        # Spawned: a forked one would share what this process has open.
        context = multiprocessing.get_context("spawn")
        self.line, far = context.Pipe()
        self.process = context.Process(target=_run, args=(opener, act, index, far), daemon=True)
        self.process.start()
        far.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid or 0

    def hear(self) -> Any:
        """Return what it says next.

        Raises:
            AssertionError: It says nothing, has ended, or says that it failed.
        """
        assert self.line.poll(4 * PATIENCE), "another process hangs"
        try:
            word, value = self.line.recv()
        except EOFError:
            raise AssertionError(SILENT) from None
        assert word != "failed", f"in another process: {value}"
        return value

    def begin(self) -> None:
        """Let it begin, once it has opened what it uses."""
        self.hear()
        self.line.send("begin")

    def end(self) -> None:
        """Kill it, if it lives still."""
        self.process.kill()
        self.process.join(PATIENCE)
        self.line.close()


def _run(opener: Callable[[], object], act: Act, index: int, line: Connection) -> None:
    try:
        opened = opener()
        line.send(("open", None))
        line.recv()
        line.send(("done", act(opened, line, index)))
    except BaseException as exc:  # noqa: BLE001 - the case says it
        line.send(("failed", f"{type(exc).__name__}: {exc}"))


@contextmanager
def others(opener: Callable[[], object], act: Act, count: int) -> Generator[list[Other]]:
    """Start processes that wait for their beginning; killed at the end of the block."""
    started = [Other(opener, act, index) for index in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.end()


def results(started: Iterable[Other]) -> list[Any]:
    """Have processes act at once; returns their results."""
    waiting = list(started)
    for each in waiting:
        each.begin()
    return [each.hear() for each in waiting]


def in_fork(work: Callable[[], int]) -> int:
    """Return a number from 0 to 255 of work in a forked child; 255 if it raised.

    Raises:
        AssertionError: The child hangs.
    """
    pid = os.fork()
    if not pid:
        code = 255
        try:
            code = work()
        finally:  # the child must not go on with the case
            os._exit(code)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("a forked child hangs")
