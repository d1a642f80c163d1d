"""Futures and tasks that sets iterate in the same order in every process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from dispatchers._journal.values import EntryKind
from dispatchers._payload.result import ResultCodec

T = TypeVar("T")


class Unwound(BaseException):
    """Raised where parked code asks for something: it is being unwound, without any effect."""


class Restart(BaseException):
    """Raised by code that begins anew; no `Exception`, so that no handler of errors takes it.

    Args:
        arguments: Encoded.
    """

    def __init__(self, arguments: bytes) -> None:
        super().__init__("the workflow begins anew")
        self.arguments = arguments


class DurableFuture(asyncio.Future[T]):
    """Future whose hash is a number that counts up with each replay."""

    __slots__ = ("serial",)
    serial: int

    # By its address it would have another place in a set in each process.
    def __hash__(self) -> int:
        return self.serial


class StepFuture(DurableFuture[T]):
    """Future of a command's result."""

    __slots__ = ("kind", "name", "number", "results")
    kind: EntryKind
    name: str
    number: int
    results: ResultCodec
    """Codec of the result."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it: an answer that comes later is not read."""
        if not super().cancel(msg):
            return False
        loop: Any = self.get_loop()
        loop.host.drop(self.number)  # nothing awaits it any more
        return True

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name} ({self.number})"


class DurableTask(asyncio.Task[T]):
    """Task whose hash is a number that counts up with each replay."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        loop: asyncio.AbstractEventLoop,
        serial: int,
        name: str | None,
        context: Context,
    ) -> None:
        # First, as asyncio puts it into a set at once.
        self.serial = serial
        self.coroutine = coro
        self.context = context
        """Python 3.11 has no `get_context`."""
        # asyncio's own numbers go on from one replay to the next.
        super().__init__(coro, loop=loop, name=name or f"Task-{serial}", context=context)
        # Thousands of parked executions would have equal hashes in asyncio's one set of all tasks.
        asyncio._unregister_task(self)

    def __hash__(self) -> int:
        return self.serial
