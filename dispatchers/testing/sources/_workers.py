"""Acts of other processes in the cases; each opens the store for itself."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import sleep
from typing import Self
from unittest.mock import patch

from dispatchers._models.request import DispatchRequest
from dispatchers.forwarding import FIRST_PAUSE, Forwarder, Source, Step
from dispatchers.testing import _others
from dispatchers.testing._trap import Trap

from ._tools import FileBackend, refusing_once, watched


@contextmanager
def others(
    opener: Callable[[], Source], act: _others.Act, count: int
) -> Generator[list[_others.Other]]:
    """Start processes that have the store open, and wait for their beginning."""
    with _others.others(partial(_opened, opener), act, count) as started:
        yield started


def _opened(opener: Callable[[], Source]) -> Source:
    source = opener()
    source.is_empty()
    return source


# Acts: functions of this module, as other processes get them pickled.


def lead_once(source: Source, line: Connection, index: int) -> bool:
    """Try to lead."""
    del line, index
    return source.lead()


def forward_slowly(source: Source, line: Connection, index: int, notes: Path) -> None:
    """Take one step; the backend says when it is called first, and waits until it is told.

    Meanwhile no heartbeat is written: a process that is stopped in the midst of a transaction
    holds what it has locked, and then none can take over.
    """
    del index
    waited: list[str] = []
    writing, lead = threading.Lock(), source.lead

    def lead_alone() -> bool:
        with writing:
            return lead()

    def answer(request: DispatchRequest) -> None:
        if not waited:
            waited.append(request.id)
            with writing:
                line.send(("done", "called"))
                line.recv()

    with patch.object(source, "lead", lead_alone):
        Forwarder(source, FileBackend(notes, answer)).step()


def no_store() -> None:
    """Open nothing: forked children are to share nothing that is open."""


def kill_forks(source: None, line: Connection, index: int, opener: Callable[[], Source]) -> None:
    """Fork a child for each line that it is told, which is killed there; say whether it was."""
    del source, index
    while (told := line.recv()) is not None:
        pid = os.fork()
        if not pid:
            _die_at(opener, *told)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        line.send(
            ("failed", f"a child ended with {status}") if status > 0 else ("done", status < 0)
        )


def _die_at(opener: Callable[[], Source], number: int, notes: Path) -> None:
    """Hand over in this process until its `number`-th line; it ends here at any rate."""
    code = 1
    try:
        source = opener()
        forwarder = Forwarder(source, FileBackend(notes, refusing_once()))
        with Trap(watched(source), number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            while (step := forwarder.step()) is not Step.EMPTY:
                if step is not Step.MOVED:  # else it passes lines without end until a row is due
                    sleep(FIRST_PAUSE)
            source.leave()
        code = 0
    finally:
        os._exit(code)


class Killer:
    """A process whose forked children are killed at lines; it has nothing open that they share."""

    def __init__(self, opener: Callable[[], Source]) -> None:
        self._other = _others.Other(no_store, partial(kill_forks, opener=opener))

    def __enter__(self) -> Self:
        self._other.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._other.end()

    def killed_at(self, line: int, notes: Path) -> bool:
        """Hand over in a child that is killed before its n-th line; false where it ended first."""
        self._other.line.send((line, notes))
        return bool(self._other.hear())
