"""A gate that a fork waits at until no thread is inside a client's locks.

A child that is forked while another thread holds such a lock inherits it without the thread that
would release it, and hangs as soon as it needs the lock itself.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from dispatchers._errors import ErrorCategory, RejectedError

__all__ = ["ForkGate"]


class Lock(Protocol):
    """A lock as `threading` has it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it within `timeout` seconds."""
        ...

    def release(self) -> None:
        """Release it."""
        ...


class ForkGate:
    """Keeps forks out while a block runs, as far as a fork can be made to wait.

    Args:
        max_wait: Seconds that a fork waits at most. A fork that waits for ever would be worse than
            a child that cannot use one client.
    """

    def __init__(self, max_wait: float = 0.5) -> None:
        self._max_wait = max_wait
        self._locks: weakref.WeakSet[Lock] = weakref.WeakSet()
        self._held: list[Lock] = []
        self._renew()
        _gates.add(self)

    @contextmanager
    def entered(self) -> Generator[None]:
        """Run a block during which no fork happens."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def entered_once(self) -> Generator[None]:
        """Run a block during which no fork happens, for locks that a thread must not take twice.

        Raises:
            RejectedError: This thread is in such a block already, which a signal handler has
                interrupted: it would wait for itself.
        """
        me = threading.get_ident()
        if me in self._threads:
            interrupted = "a signal handler has interrupted the client in this thread"
            raise RejectedError(ErrorCategory.CAPACITY, interrupted)
        try:
            self._threads.add(me)
            with self.entered():
                yield
        finally:
            self._threads.discard(me)

    def guard(self, lock: Lock) -> None:
        """Hold a client's own lock during each fork, for as long as the lock lives."""
        with self._changed:  # a fork goes through them
            self._locks.add(lock)

    def _enter(self) -> None:
        with self._changed:
            if self._closed:  # a fork waits for others: this one begins after it
                self._changed.wait_for(lambda: not self._closed, self._max_wait)
            self._inside += 1

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def _before_fork(self) -> None:
        # Kept until after the fork: no thread can enter meanwhile.
        self._changed.acquire()
        self._closed = True
        self._changed.wait_for(lambda: not self._inside, self._max_wait)
        # Those that could be had in time; the others are left, as a fork must not hang.
        self._held = [lock for lock in tuple(self._locks) if lock.acquire(timeout=self._max_wait)]

    def _after_fork_in_parent(self) -> None:
        self._release()
        self._closed = False
        self._changed.notify_all()
        self._changed.release()

    def _renew(self) -> None:
        """In a child: no thread but this one exists, so nothing is inside."""
        self._release()
        self._changed = threading.Condition(threading.RLock())
        self._threads: set[int] = set()
        self._inside = 0
        self._closed = False

    def _release(self) -> None:
        while self._held:
            self._held.pop().release()


_gates: weakref.WeakSet[ForkGate] = weakref.WeakSet()
_forking = threading.RLock()
"""Held by a thread that forks: two that forked at once would wait for, and open, each other's."""
_shut: list[list[ForkGate]] = []
"""The gates that a fork has closed, and those of a fork in a signal handler that interrupts it."""


def _before_fork() -> None:
    _forking.acquire()
    _shut.append(list(_gates))
    for gate in _shut[-1]:
        gate._before_fork()


def _after_fork_in_parent() -> None:
    for gate in reversed(_shut.pop()):
        gate._after_fork_in_parent()
    _forking.release()


def _after_fork_in_child() -> None:
    for gate in _shut.pop():
        gate._renew()
    _forking.release()  # the thread that held it is the one that this process has


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
