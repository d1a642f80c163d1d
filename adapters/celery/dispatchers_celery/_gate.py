"""A fork waits until no connection is being opened.

kombu computes its attributes under locks that belong to their classes. A child that is forked while
another thread computes one inherits a lock that nobody will let go, and could never connect.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["opening"]

PATIENCE = 0.5
"""Seconds that a fork waits: opening takes some milliseconds, where there is a broker."""


class _Gate:
    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """In a child: nothing is under way."""
        self._changed = threading.Condition(threading.RLock())
        self._under_way = 0
        self._shutting = False

    def shut(self) -> None:
        """Wait for what is under way; nothing begins from now on."""
        self._changed.acquire()
        self._shutting = True
        self._changed.wait_for(lambda: not self._under_way, PATIENCE)

    def open(self) -> None:
        """In the parent, after the fork."""
        self._shutting = False
        self._changed.notify_all()
        self._changed.release()

    def enter(self) -> None:
        """One more is under way; while a fork waits for others, only after it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shutting, PATIENCE)
            self._under_way += 1

    def leave(self) -> None:
        """One less."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


_gate = _Gate()


@contextmanager
def opening() -> Generator[None]:
    """No fork happens during the block, as far as one can be made to wait for it."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(
        before=_gate.shut, after_in_parent=_gate.open, after_in_child=_gate.begin_anew
    )
