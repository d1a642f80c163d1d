"""`PerProcess`: one client for each process, made within a fork gate."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from dispatchers._runtime.fork_gate import ForkGate

__all__ = ["PerProcess"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One object for each process, such as a client, made when it is first asked for.

    One that came over a fork is kept and not touched: closing it, or letting go of it, would end
    connections that are the parent's, or hang.

    Args:
        gate: Entered while an object is made, so that no fork happens then.

        is_usable: Tells within the gate whether an object still serves; another takes its place
            where not.
    """

    def __init__(self, gate: ForkGate, is_usable: Callable[[T], bool] | None = None) -> None:
        self._gate = gate
        self._is_usable = is_usable
        self._lock = threading.RLock()
        self._own: tuple[int, T] | None = None
        self._inherited: object = None

    def get(self, make: Callable[[], T]) -> T:
        """Return the object of this process; where there is none that serves, make it.

        Threads that ask at once get the same. What `make` raises is raised.
        """
        if (found := self._found()) is not None:
            return found
        with self._gate.entered(), self._lock:  # in this order: no fork happens under the lock
            own = self._own
            if own is not None and own[0] != os.getpid():
                self._inherited = self._inherited, own
            elif own is not None and self._serves(own[1]):
                return own[1]
            made = make()
            self._own = os.getpid(), made
            return made

    def take(self) -> T | None:
        """Return the object of this process, if there is one, to close it; forget it."""
        with self._lock:
            own = self._own
            if own is None or own[0] != os.getpid():
                return None
            self._own = None
            return own[1]

    def _found(self) -> T | None:
        own = self._own
        if own is None or own[0] != os.getpid():
            return None
        if self._is_usable is None:
            return own[1]
        with self._gate.entered():
            return own[1] if self._is_usable(own[1]) else None

    def _serves(self, found: T) -> bool:
        return self._is_usable is None or self._is_usable(found)
