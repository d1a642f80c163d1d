"""Callbacks and timers of the deterministic loop, and what the loop asks of its owner."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from dispatchers._errors import NotDurableError


class Handle(asyncio.Handle):
    """A callback, made without the loop being asked for its debug mode."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class Timer(asyncio.TimerHandle):
    """A callback that is due when the journal says so."""

    __slots__ = ("number",)
    number: int
    """The number of its command; below 0 for one that is never due."""


class Host(Protocol):
    """Owner of a loop."""

    def drop(self, number: int) -> None:
        """Forget a command whose result nothing awaits any more."""
        ...

    def start_timer(self, timer: Timer) -> None:
        """Ask for a timer."""
        ...

    def stop_timer(self, timer: Timer) -> None:
        """Forget a timer."""
        ...

    def halt(self, why: str) -> None:
        """Let the code go no further."""
        ...

    def refuse(self, what: str, cure: str) -> NotDurableError:
        """Halt the code, and return the error to raise in it."""
        ...

    def report(self, context: dict[str, Any]) -> None:
        """Tell of an exception in a callback."""
        ...
