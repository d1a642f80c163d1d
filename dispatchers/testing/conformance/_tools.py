"""Tools of the cases: waiting, watching, measuring, other processes."""

from __future__ import annotations

import atexit
import logging
import os
import re
import select
import signal
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import pytest

from dispatchers import (
    BaseDispatcher,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    hooks,
)
from dispatchers._models.envelope import decode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

__all__ = [
    "DEADLINE",
    "MARGIN",
    "PATIENCE",
    "answered",
    "arrived",
    "eventually",
    "handed_over",
    "in_child",
    "in_child_that_exits",
    "label",
    "log_records",
    "long_text",
    "opened",
    "refused_with",
    "run_until",
    "send",
    "told",
]

T = TypeVar("T")


def label(value: object) -> str:
    """A parameter's name in a case's id, the same in every process that collects the case."""
    if isinstance(value, (set, frozenset)):  # their order is another one in each process
        value = sorted(value, key=repr)
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)[:60]


def long_text(dispatcher: BaseDispatcher) -> str:
    """A text of 100 kB, or of less where the backend takes less."""
    most = dispatcher.capabilities.max_size
    # With a character of two bytes: a length in characters would cut the end off.
    text = "0123456789abcdeé" * 6250
    return text if most is None else text[: most // 2]


class NeverHappenedError(AssertionError):
    """The work did not run, or did not do what it should."""

    def __init__(self, ran: int, last: object) -> None:
        super().__init__(f"{self.__doc__} Steps of a worker: {ran}, the last: {last!r}")


DEADLINE = 0.3
"""Seconds that the cases give a dispatcher."""
MARGIN = 0.25
"""C2: the answer comes within the deadline and so many seconds."""
GLANCE = 0.01
"""Seconds of one wait of many."""
HOPELESS = 5.0
"""Seconds beyond a deadline after which waiting ends."""
LATER = 3
"""So much work run one after the other shows that earlier work had its turn."""
PATIENCE = 20.0
"""Seconds until the suite gives up on something that should happen at some time."""


def send(dispatcher: BaseDispatcher, journal: Journal, text: str = "") -> DispatchResponse:
    """Dispatch a note: the plainest work there is."""
    return tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, text)


def opened(dispatcher: BaseDispatcher, journal: Journal) -> DispatchResponse:
    """Dispatch a note that must arrive: its connection gets what a busy machine needs for it."""
    return (
        tasks.note.options(dispatcher=dispatcher, deadline=PATIENCE)
        .dispatch(journal.path)
        .raise_for_error()
    )


def answered(deadline: float, call: Callable[[], T]) -> T:
    """Return the result of `call`, which must come within the deadline and the margin (C2).

    It is called on a thread of its own, so that a call that hangs fails the case and no more. What
    this thread oversleeps meanwhile, and what the process's threads were ready to run and got no
    processor, is the lateness of a busy machine, and forgiven.
    """
    timed: list[tuple[float, float, T | BaseException]] = []
    queued, before = _queued(), monotonic()
    # A daemon: a call that hangs for ever must not keep the test run from ending.
    thread = threading.Thread(target=lambda: timed.append(_timed(call, queued)), daemon=True)
    # Returns late where the new thread collects garbage, which lets no other thread run.
    thread.start()
    overslept = max(monotonic() - before, _watch(thread, deadline + HOPELESS))
    assert timed, f"no answer after {deadline + HOPELESS:.1f} s, the deadline is {deadline} s"
    took, waited, answer = timed[0]
    late = overslept + waited
    assert took <= deadline + MARGIN + late, (
        f"answered after {took:.2f} s, the deadline is {deadline} s, the machine {late:.2f} s late"
    )
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _watch(thread: threading.Thread, seconds: float) -> float:
    """Wait for a thread, and say by how much many short waits were overslept."""
    before = monotonic()
    until, late = before + seconds, 0.0
    while thread.is_alive() and before < until + late:
        thread.join(GLANCE)
        before, last = monotonic(), before
        late += stalled(before - last)
    return late


def stalled(seconds: float) -> float:
    """Return the seconds of a wait of `GLANCE` in which the machine has stood still.

    A wait that takes longer than asked for shows how late the machine wakes its threads; a little
    longer is the turn of another thread of this process, which is that thread's matter.
    """
    late = seconds - GLANCE
    return late if late > GLANCE else 0.0


def _queued() -> dict[str, float]:
    """Seconds that each thread of this process has waited for a processor, where Linux tells."""
    return {task.name: _queued_of(task) for task in Path("/proc/self/task").glob("*")}


def _queued_of(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # the thread has ended, or the kernel does not count
        return 0.0


def _waited(before: dict[str, float]) -> float:
    """Seconds that threads have waited since, summed: one often waits for what another will do."""
    # None has waited less than before: one that ends meanwhile is read as nothing.
    return sum(max(0.0, waited - before.get(name, 0.0)) for name, waited in _queued().items())


def _timed(
    call: Callable[[], T], queued: dict[str, float]
) -> tuple[float, float, T | BaseException]:
    """Return how long the call took, how long threads waited for a processor, and the answer."""
    started = monotonic()
    try:
        answer: T | BaseException = call()
    except BaseException as exc:  # noqa: BLE001 - raised again on the case's own thread
        answer = exc
    # Read on this thread: what a thread has waited is gone when it ends.
    return monotonic() - started, _waited(queued), answer


def handed_over(response: DispatchResponse) -> DispatchResponse:
    """Fail at once, with the answer, where the work was not taken: it is waited for afterwards."""
    assert response.status not in (DispatchStatus.REJECTED, DispatchStatus.UNKNOWN), response
    return response


def eventually(done: Callable[[], bool], timeout: float | None = None) -> None:
    """Wait for what another process or thread brings up to date in its own time."""
    until = monotonic() + (PATIENCE if timeout is None else timeout)
    while not done():
        assert monotonic() < until, "it never came to be"
        sleep(GLANCE)


def refused_with(response: DispatchResponse, *categories: ErrorCategory) -> None:
    """The response is REJECTED, with one of the categories if any is named."""
    assert response.status is DispatchStatus.REJECTED, response
    assert response.error is not None
    if categories:
        assert response.error.category in categories, response


def run_until(harness: Harness, dispatcher: BaseDispatcher, done: Callable[[], bool]) -> None:
    """Let work run until `done()`; fails when that does not come to be."""
    until = monotonic() + PATIENCE
    # Work that is run over and over ends as well, later: much work may take a slow machine long.
    endless = until + 2 * PATIENCE
    ran, last = 0, None
    while not done():
        if (step := harness.run_next(dispatcher)) is not None:
            ran, last = ran + 1, step
        if monotonic() > (until if step is None else endless):
            raise NeverHappenedError(ran, last)
        if step is None:
            sleep(0.005)


def arrived(
    harness: Harness, dispatcher: BaseDispatcher, journal: Journal, *expected: str
) -> list[str]:
    """The request ids of the work that reached the backend so far, looked up or run.

    Where the backend cannot be inspected, further work is run after it, one piece after the other:
    what had arrived before has had its turn by then. Work that is `expected` is waited for.
    """
    if harness.has("received"):
        return [decode(body).id for body in harness.received(dispatcher)]
    harness.need("worker")
    # Several, since workers with a few processes may overtake.
    later = [_ran(harness, dispatcher, journal) for _ in range(LATER)]
    with suppress(NeverHappenedError):
        run_until(harness, dispatcher, lambda: all(journal.of(each) for each in expected))
    return [entry.request_id for entry in journal.entries if entry.request_id not in later]


def _ran(harness: Harness, dispatcher: BaseDispatcher, journal: Journal) -> str:
    """The request id of work that was dispatched and has run."""
    last = send(dispatcher, journal, "later").raise_for_error().request_id
    run_until(harness, dispatcher, lambda: bool(journal.of(last)))
    return last


@contextmanager
def told() -> Generator[list[DispatchResponse]]:
    """The responses that the hooks are told of during the block."""
    seen: list[DispatchResponse] = []
    hook = hooks.after_dispatch(seen.append)
    try:
        yield seen
    finally:
        hooks.remove(hook)


@contextmanager
def log_records() -> Generator[list[logging.LogRecord]]:
    """The records of the logger `dispatchers` during the block, of every level."""
    logger = logging.getLogger("dispatchers")
    handler, level = _Keeping(), logger.level
    logger.addHandler(handler)
    # Every level: some cases assert that nothing is logged at all.
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Keeping(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def in_child(work: Callable[[], Any], meanwhile: Callable[[], object] = bool) -> str:
    """Return the text of `work`, run in a forked child that then dies by `kill -9`.

    `meanwhile` is what this process does at the same time. Fails when the child hangs, and skips
    where the system cannot fork.
    """
    return _child_says(lambda write: _say_and_die(work, write), meanwhile)


def in_child_that_exits(work: Callable[[], object], last: Callable[[], Any]) -> str:
    """Return the text of `last`, run as the interpreter of a forked child exits after `work`."""
    return _child_says(lambda write: _exit_saying(work, last, write), bool)


def _child_says(act: Callable[[int], object], meanwhile: Callable[[], object]) -> str:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    read, write = os.pipe()
    child = _forked()
    if child == 0:
        act(write)
    # Else reading would not end when the child dies: this process would be a writer, too.
    os.close(write)
    try:
        meanwhile()
        return _said(read)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _forked() -> int:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks beside threads: that it works is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _say_and_die(work: Callable[[], Any], write: int) -> None:
    try:
        os.write(write, str(work()).encode())
    except BaseException as exc:  # noqa: BLE001 - the parent tells
        os.write(write, f"{type(exc).__name__}: {exc}".encode())
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _exit_saying(work: Callable[[], object], last: Callable[[], Any], write: int) -> None:
    """Exit as a program does at its end, and say the last words after its threads were joined."""
    import ctypes

    # What the test run has registered is the parent's to do.
    atexit._clear()
    # It dies there: finalizers would remove the parent's files.
    atexit.register(_say_and_die, last, write)
    try:
        work()
        ctypes.pythonapi.Py_Exit(0)
    except BaseException as exc:  # noqa: BLE001 - the parent tells
        os.write(write, f"{type(exc).__name__}: {exc}".encode())
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _said(read: int) -> str:
    # `read` alone would wait for ever for a child that hangs.
    ready, _, _ = select.select([read], [], [], PATIENCE)
    assert ready, "the child hangs"
    return os.read(read, 65536).decode()
