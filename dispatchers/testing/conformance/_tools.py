"""What the cases share: waiting, watching, measuring, other processes."""

from __future__ import annotations

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
from dispatchers._envelope import decode
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

__all__ = [
    "DEADLINE",
    "MARGIN",
    "PATIENCE",
    "answered",
    "arrived",
    "in_child",
    "label",
    "log_records",
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


class NeverHappenedError(AssertionError):
    """The work did not run, or did not do what it should."""

    def __str__(self) -> str:
        return str(self.__doc__)


DEADLINE = 0.3
"""Seconds that the cases give a dispatcher."""
MARGIN = 0.25
"""C2: the answer comes within the deadline and so many seconds."""
GLANCE = 0.01
"""Seconds of one wait of many."""
HOPELESS = 5.0
"""Seconds beyond a deadline after which nobody waits any more."""
LATER = 3
"""So much work run one after the other shows that earlier work had its turn."""
PATIENCE = 20.0
"""Seconds until the suite gives up on something that should happen at some time."""


def send(dispatcher: BaseDispatcher, journal: Journal, text: str = "") -> DispatchResponse:
    """Dispatch a note: the plainest work there is."""
    return tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, text)


def answered(deadline: float, call: Callable[[], T]) -> T:
    """What `call` returns, if it does so within the deadline and the margin (C2).

    It is called on a thread of its own, so that a call that hangs fails the case and no more. What
    this thread oversleeps meanwhile, and what one thread was ready to run and got no processor, is
    the lateness of a busy machine, and forgiven.
    """
    timed: list[tuple[float, T | BaseException]] = []
    thread = threading.Thread(target=lambda: timed.append(_timed(call)), daemon=True)
    queued, before = _queued(), monotonic()
    thread.start()  # returns late where the new thread collects garbage: it lets nobody else run
    overslept = max(monotonic() - before, _watch(thread, deadline + HOPELESS))
    assert timed, f"no answer after {deadline + HOPELESS:.1f} s, the deadline is {deadline} s"
    took, answer = timed[0]
    late = overslept + _longest_wait(queued)
    assert took <= deadline + MARGIN + late, (
        f"answered after {took:.2f} s, the deadline is {deadline} s, the machine {late:.2f} s late"
    )
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _watch(thread: threading.Thread, seconds: float) -> float:
    """Wait for a thread, and say by how much the longest of many short waits was overslept."""
    until = before = monotonic()
    until += seconds
    longest = 0.0
    while thread.is_alive() and before < until:
        thread.join(GLANCE)
        before, last = monotonic(), before
        longest = max(longest, before - last - GLANCE)
    return longest


def _queued() -> dict[str, float]:
    """Seconds that each thread of this process has waited for a processor, where Linux tells."""
    return {task.name: _queued_of(task) for task in Path("/proc/self/task").glob("*")}


def _queued_of(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # the thread has ended, or the kernel does not count
        return 0.0


def _longest_wait(before: dict[str, float]) -> float:
    """The longest that one thread has waited since."""
    now = _queued()
    return max((waited - before.get(name, 0.0) for name, waited in now.items()), default=0.0)


def _timed(call: Callable[[], T]) -> tuple[float, T | BaseException]:
    started = monotonic()
    try:
        answer: T | BaseException = call()
    except BaseException as exc:  # noqa: BLE001 - raised again on the case's own thread
        answer = exc
    return monotonic() - started, answer


def refused_with(response: DispatchResponse, *categories: ErrorCategory) -> None:
    """The response is REJECTED, with one of the categories if any is named."""
    assert response.status is DispatchStatus.REJECTED, response
    assert response.error is not None
    if categories:
        assert response.error.category in categories, response


def run_until(harness: Harness, dispatcher: BaseDispatcher, done: Callable[[], bool]) -> None:
    """Let work run until `done()`; fails when that does not come to be."""
    until = monotonic() + PATIENCE
    while not done():
        if harness.run_next(dispatcher) is None:
            if monotonic() > until:
                raise NeverHappenedError
            sleep(0.005)


def arrived(
    harness: Harness, dispatcher: BaseDispatcher, journal: Journal, *expected: str
) -> list[str]:
    """The request ids of the work that reached the backend so far, looked up or run.

    Where nobody can look into the backend, further work is run after it, one piece after the other:
    what had arrived before has had its turn by then. Work that is `expected` is waited for.
    """
    if harness.has("received"):
        return [decode(body).id for body in harness.received(dispatcher)]
    harness.need("worker")
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


def in_child(work: Callable[[], Any]) -> str:
    """What `work` returns in a forked child, as text; the child then dies by `kill -9`.

    Fails when the child hangs, and skips where the system cannot fork.
    """
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    read, write = os.pipe()
    child = _forked()
    if child == 0:
        _say_and_die(work, write)
    os.close(write)
    try:
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


def _said(read: int) -> str:
    ready, _, _ = select.select([read], [], [], PATIENCE)
    assert ready, "the child hangs"
    return os.read(read, 65536).decode()
