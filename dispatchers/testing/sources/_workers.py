"""Acts of other processes in the cases; each opens the store for itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from time import sleep
from typing import Any, Self

from dispatchers._models.request import DispatchRequest
from dispatchers.forwarding import FIRST_PAUSE, Forwarder, Source, Step

from ._tools import PATIENCE, FileBackend, refusing_once
from ._trap import Trap, watched

Act = Callable[..., Any]

SILENT = (
    "another process ended before it had anything to say; its error is in the captured stderr. If"
    " it cannot import the module of `opener`: pytest's `pythonpath` must name its folder"
)


class Other:
    """Another process, which carries out one act after it was told to begin."""

    def __init__(self, opener: Callable[[], object], act: Act, *args: object) -> None:
        # Spawned: a forked one would share what this process has open.
        context = multiprocessing.get_context("spawn")
        self.line, far = context.Pipe()
        self.process = context.Process(target=_run, args=(opener, act, args, far), daemon=True)
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
        """Let it begin, once it has opened the store."""
        self.hear()
        self.line.send("begin")

    def end(self) -> None:
        """Kill it, if it lives still."""
        self.process.kill()
        self.process.join(PATIENCE)
        self.line.close()


def _run(
    opener: Callable[[], object], act: Act, args: tuple[object, ...], line: Connection
) -> None:
    try:
        source = opener()
        if isinstance(source, Source):
            source.is_empty()
        line.send(("open", None))
        line.recv()
        line.send(("done", act(source, line, *args)))
    except BaseException as exc:  # noqa: BLE001 - the case says it
        line.send(("failed", f"{type(exc).__name__}: {exc}"))


@contextmanager
def others(
    opener: Callable[[], Source], act: Act, count: int, *args: object
) -> Generator[list[Other]]:
    """Start processes that wait for their beginning; killed at the end of the block."""
    started = [Other(opener, act, *args) for _ in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.end()


def results(opener: Callable[[], Source], act: Act, count: int) -> list[Any]:
    """Have several processes act at once; returns their results."""
    with others(opener, act, count) as started:
        for each in started:
            each.begin()
        return [each.hear() for each in started]


# Acts: functions of this module, as other processes get them pickled.


def lead_once(source: Source, line: Connection) -> bool:
    """Try to lead."""
    del line
    return source.lead()


def forward_slowly(source: Source, line: Connection, notes: Path) -> None:
    """Take one step; the backend says when it is called first, and waits until it is told."""
    waited: list[str] = []

    def answer(request: DispatchRequest) -> None:
        if not waited:
            waited.append(request.id)
            line.send(("done", "called"))
            line.recv()

    Forwarder(source, FileBackend(notes, answer)).step()


def no_store() -> None:
    """Open nothing: forked children are to share nothing that is open."""


def kill_forks(source: None, line: Connection, opener: Callable[[], Source]) -> None:
    """Fork a child for each line that it is told, which is killed there; say whether it was."""
    del source
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
        self._other = Other(no_store, kill_forks, opener)

    def __enter__(self) -> Self:
        self._other.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._other.end()

    def killed_at(self, line: int, notes: Path) -> bool:
        """Hand over in a child that is killed before its n-th line; false where it ended first."""
        self._other.line.send((line, notes))
        return bool(self._other.hear())
