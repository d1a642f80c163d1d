"""A place in the line of those whose rows another thread of the process may write."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from dispatchers.sqlite._errors import StoreError
from dispatchers.sqlite._records import Stored

__all__ = ["Waiting"]


class Waiting:
    """The rows that one thread wants to have written, and its wait for the answer.

    Args:
        rows: The rows.

        size: Bytes of their bodies.
    """

    __slots__ = ("_bell", "_free", "answer", "rows", "size")

    def __init__(self, rows: list[tuple[Any, ...]], size: int) -> None:
        self.rows = rows
        self.size = size
        self.answer: list[Stored] | StoreError | None = None
        self._free = [True]  # popped by the thread that takes it: a test and set without a lock
        self._bell = threading.Lock()
        self._bell.acquire()

    def take(self) -> bool:
        """Claim it, to write it or to give it up; false if another thread was first."""
        try:
            return self._free.pop()
        except IndexError:
            return False

    def leave(self) -> None:
        """Undo `take`."""
        self._free.append(True)

    def settle(self, answer: list[Stored] | StoreError) -> None:
        """Give the answer."""
        self.answer = answer
        self.wake()

    def result(self) -> list[Stored]:
        """The answer, once there is one.

        Raises:
            StoreError: If that was it.
        """
        if isinstance(self.answer, list):
            return self.answer
        assert self.answer is not None
        raise self.answer

    def wake(self) -> None:
        """End the sleep, or the next one."""
        with contextlib.suppress(RuntimeError):  # it has been woken already
            self._bell.release()

    def sleep(self, seconds: float) -> None:
        """Wait to be woken."""
        self._bell.acquire(timeout=seconds)
