"""A place in the queue of those whose rows another thread of the process may write."""

from __future__ import annotations

from typing import Any

from dispatchers._runtime.waiting import Waiting
from dispatchers.sqlite._errors import StoreError
from dispatchers.sqlite._records import Stored

__all__ = ["WaitingRows"]


class WaitingRows(Waiting):
    """The rows that one thread wants to have written, and its wait for the answer.

    Args:
        rows: The rows.

        size: Bytes of their bodies.
    """

    __slots__ = ("answer", "rows", "size")

    def __init__(self, rows: list[tuple[Any, ...]], size: int) -> None:
        super().__init__()
        self.rows = rows
        self.size = size
        self.answer: list[Stored] | StoreError | None = None

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
