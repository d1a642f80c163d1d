"""Stopping a worker, also from a signal handler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Any

__all__ = [
    "StopFlag",
    "act_by_default",
    "acted_in_fork",
    "ignore_signals",
    "own_handler",
    "stopped_by_signals",
]


class StopFlag:
    """A flag that a worker waits for and a signal handler may set.

    A `threading.Event` is none: its `set` takes a lock that the main thread, interrupted in its
    `wait`, may hold, and both wait for ever. Here setting is one step of the interpreter.
    A `SimpleQueue` is none either: where a handler outlasts the timeout of its `get`, that one
    waits for ever (Python 3.11 and 3.12).
    """

    def __init__(self) -> None:
        self._stopped = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def set(self) -> None:
        """Set the flag, for good, and wake those who wait. Safe in signal handlers."""
        self._stopped = True
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def is_set(self) -> bool:
        """Tell whether the flag is set."""
        return self._stopped

    def wait(self, timeout: float) -> bool:
        """Wait until the flag is set, at most `timeout` seconds; tell whether it is."""
        left = min(max(0.0, timeout), threading.TIMEOUT_MAX)
        if not self._stopped and self._bell.acquire(timeout=left):
            self.set()  # for another thread that waits
        return self._stopped


Signal = Callable[[int, FrameType | None], Any]
ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that end a worker."""
REPEATED = 0.2
"""Seconds in which a second SIGINT, or the other signal, is the first once more: a terminal signals
all processes of a group, and whatever started this one passes its own on."""

_stops: list[Callable[[], object]] = []
"""What the blocks call that this process is in, the outermost first."""


@contextmanager
def stopped_by_signals(stop: Callable[[], object], *, patient: bool = False) -> Generator[None]:
    """Have SIGTERM and SIGINT call `stop` while the block runs; the second raises at once.

    On any thread but the main one nothing changes: only that one may handle signals. Within
    another such block, the other's `stop` is called after this one.

    Args:
        stop: Begins a graceful end; called in the signal handler, so that it must not take locks.
            It may be called again.

        patient: Take further signals for repetitions of the first.

    Raises:
        KeyboardInterrupt: A second signal came, unless `patient`.
    """
    # `signal.signal` raises on any other thread.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: tuple[int, float] | None = None
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first
        del frame
        if acted_in_fork(process, number):
            return
        if first is not None and not patient and not _is_repeated(number, *first):
            raise KeyboardInterrupt
        first = first or (number, monotonic())
        # The command tells its probes, though a worker has a handler of its own within.
        for each in reversed(_stops):
            each()

    # Kept and restored: a worker may run inside a program that has handlers of its own.
    _stops.append(stop)
    before = {number: signal.signal(number, own_handler(handle)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _own[:] = [each for each in _own if each is not handle]
        _stops[:] = [each for each in _stops if each is not stop]


def _is_repeated(number: int, before: int, at: float) -> bool:
    return (number, before) != (signal.SIGTERM,) * 2 and monotonic() - at < REPEATED


def act_by_default(number: int) -> None:
    """Do to this process what a signal does to a plain program."""
    signal.signal(number, _default(number))
    os.kill(os.getpid(), number)


def _default(number: int) -> Signal | signal.Handlers:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


def acted_in_fork(process: int, number: int) -> bool:
    """Act by default in a process that a handler has forked from `process`; tell if this is one.

    It has inherited the signal handlers of a worker, and would never end by a signal.
    """
    if os.getpid() == process:
        return False
    act_by_default(number)
    return True


def ignore_signals() -> None:
    """Leave SIGTERM and SIGINT to the worker that this process runs tasks for.

    A supervisor, or a terminal, signals all processes of a group; the worker decides their end.
    The handlers are not `SIG_IGN`: a program that a task starts would inherit that.
    """
    process = os.getpid()

    def ignore(number: int, frame: FrameType | None) -> None:
        del frame
        acted_in_fork(process, number)

    for number in ENDING:
        signal.signal(number, own_handler(ignore))


_own: list[Signal] = []
"""The signal handlers of workers in this process: what it forks does not keep them."""
_kept = threading.local()
"""The signals that the forking thread has blocked for itself."""


def own_handler(handler: Signal) -> Signal:
    """Have a worker's signal handler left out of the processes that its tasks fork.

    A handler in Python is not called while the process waits in C for what never comes, as the
    processes of a pool do: such a process would not end by a signal. Returns the handler.
    """
    if handler not in _own:
        _own.append(handler)
    return handler


def _hold_signals() -> None:
    _kept.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def _let_signals_in() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _kept.mask)


def _act_as_a_plain_program() -> None:
    for number in ENDING:
        if signal.getsignal(number) in _own:
            signal.signal(number, _default(number))
    _own.clear()
    _stops.clear()  # what the parent would stop is the parent's
    _let_signals_in()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    # Python drops the signals that a child gets before its first line where they have handlers,
    # and a pool that ends at once would wait for such a child for ever: they wait for that line.
    os.register_at_fork(
        before=_hold_signals,
        after_in_parent=_let_signals_in,
        after_in_child=_act_as_a_plain_program,
    )
