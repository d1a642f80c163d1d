"""A fork waits until no call is under way.

gRPC lets a process fork only while nobody is inside it: a child that is forked during a call of
another thread inherits gRPC's locks, held by nobody, and hangs in its first call (grpcio 1.85). Of
its own threads gRPC takes care itself, if it was told so before it was imported.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["calling", "keep_from_forks"]

SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
"""https://github.com/grpc/grpc/blob/master/doc/fork_support.md"""
PATIENCE = 2.0
"""Seconds that a fork waits at most; a call takes milliseconds, where the service answers."""


class _Gate:
    def __init__(self) -> None:
        self.locks: weakref.WeakSet[Any] = weakref.WeakSet()
        self._held: list[Any] = []
        self.begin_anew()

    def begin_anew(self) -> None:
        """In a child: nothing is under way."""
        self._let_go()
        self._changed = threading.Condition(threading.RLock())
        self._under_way = 0
        self._shut = False

    def shut(self) -> None:
        """Wait for what is under way; nothing begins from now on."""
        self._changed.acquire()
        self._shut = True
        self._changed.wait_for(lambda: not self._under_way, PATIENCE)
        self._held = [lock for lock in tuple(self.locks) if lock.acquire(timeout=PATIENCE)]

    def _let_go(self) -> None:
        while self._held:
            self._held.pop().release()

    def open(self) -> None:
        """In the parent, after the fork."""
        self._let_go()
        self._shut = False
        self._changed.notify_all()
        self._changed.release()

    def enter(self) -> None:
        """One more is under way; while a fork waits for others, only after it."""
        with self._changed:
            if self._shut:
                self._changed.wait_for(lambda: not self._shut, PATIENCE)
            self._under_way += 1

    def leave(self) -> None:
        """One less."""
        with self._changed:
            self._under_way -= 1
            if self._shut:
                self._changed.notify_all()


_gate = _Gate()


@contextmanager
def calling() -> Generator[None]:
    """No fork happens during the block, as far as one can be made to wait for it."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()


def keep_from_forks(channel: object) -> None:
    """No fork happens while one of gRPC's threads has the lock of the channel's state.

    In the child gRPC takes it before anything else: a lock that a thread of the parent's had is
    never let go (grpcio 1.85, `Channel._postfork_child`).
    """
    lock = getattr(getattr(channel, "_connectivity_state", None), "lock", None)
    if lock is not None:
        _gate.locks.add(lock)


if "grpc" not in sys.modules:
    os.environ.setdefault(SUPPORT, "1")
if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_gate.shut, after_in_parent=_gate.open, after_in_child=_gate.begin_anew
    )
