"""An event loop's side of the calls that it waits for: their time limits, and their answers.

Both are asyncio's work, done for less. One timer serves the limits of all calls, nearly all of
which are dropped before they ring. And a thread's answer comes by an `eventfd` where the loop is
asyncio's on Linux: `call_soon_threadsafe` writes to a socket that the loop reads twice, the second
time to be told that it is empty.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

if TYPE_CHECKING:
    import asyncio

__all__ = ["LoopSide", "side_of"]

T = TypeVar("T")

GRAIN = 0.01
"""Seconds between two rings at least, so that many limits that pass singly do not fill a loop."""

EARLY = 0.001
"""Seconds by which a loop may ring too early: uvloop counts in milliseconds."""


class LoopSide:
    """Time limits and answers of the calls of one event loop.

    Its file descriptor is closed with the last reference: a thread that answers late must not write
    to what has the number by then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # weak: this is kept as the loop's own
        self._limits: dict[object, tuple[float, Callable[[], object]]] = {}
        self._rings_at = float("inf")
        self._posted: deque[tuple[Callable[..., object], Any]] = deque()
        self._fd = _eventfd(loop)
        if self._fd is not None:
            # A context of its own here and below: the caller's may hold large things.
            Context().run(loop.add_reader, self._fd, self._take_posted)

    def __del__(self) -> None:
        if (fd := getattr(self, "_fd", None)) is not None:
            os.close(fd)

    # Answers.

    def post(self, then: Callable[[T], object], value: T) -> None:
        """Call `then(value)` on the loop, from any thread.

        Raises:
            RuntimeError: The loop is closed, or gone.
        """
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise RuntimeError("the event loop is closed")
        if self._fd is None:
            loop.call_soon_threadsafe(then, value)
        else:
            self._posted.append((then, value))
            os.eventfd_write(self._fd, 1)

    def _take_posted(self) -> None:
        assert self._fd is not None
        with suppress(BlockingIOError):  # a forked child that used the loop has read it
            os.eventfd_read(self._fd)
        try:
            while self._posted:
                then, value = self._posted.popleft()
                then(value)
        finally:
            if self._posted:  # a signal's exception must not hold up the others
                os.eventfd_write(self._fd, 1)

    # Time limits. Nothing is cancelled: what rings when none has passed is set again, or not.

    def limit(self, owner: object, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` in so many seconds, or soon after; in place of the owner's former limit.

        To be called on the loop.
        """
        if (loop := self._loop()) is None:
            return
        due = loop.time() + seconds
        self._limits[owner] = due, then
        if due < self._rings_at:
            self._ring_at(loop, due)

    def drop(self, owner: object) -> None:
        """Forget the owner's limit."""
        self._limits.pop(owner, None)

    def _ring_at(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._rings_at = when
        loop.call_at(when, self._ring, loop, when, context=Context())

    def _ring(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if when != self._rings_at:  # an earlier one was set meanwhile, and rang
            return
        self._rings_at = float("inf")
        now = loop.time()
        limits = tuple(self._limits.items())
        passed = [owner for owner, (due, _) in limits if due <= now + EARLY]
        try:
            for owner in passed:
                # Gone where an earlier one has ended it.
                if (limit := self._limits.pop(owner, None)) is not None:
                    limit[1]()
        finally:
            self._ring_again(loop, now + GRAIN)

    def _ring_again(self, loop: asyncio.AbstractEventLoop, earliest: float) -> None:
        if self._limits:
            following = max(min(due for due, _ in self._limits.values()), earliest)
            if following < self._rings_at:
                self._ring_at(loop, following)


def _eventfd(loop: asyncio.AbstractEventLoop) -> int | None:
    """Return a new one for loops whose every step is known; uvloop has its own within."""
    import asyncio

    if type(loop) is not asyncio.SelectorEventLoop or not hasattr(os, "eventfd"):
        return None
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError:  # no file descriptor is left
        return None


_sides: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopSide] = WeakKeyDictionary()


class _OfThread(threading.local):
    """The event loop that this thread has run last, and our side of it: found at once."""

    # Weak: a loop would else live as long as its thread.
    loop: ReferenceType[asyncio.AbstractEventLoop] | None = None
    side: LoopSide


_last = _OfThread()


def side_of(loop: asyncio.AbstractEventLoop) -> LoopSide:
    """Return our side of the loop that runs in this thread."""
    if _last.loop is not None and _last.loop() is loop:
        return _last.side
    if (side := _sides.get(loop)) is None:
        side = _sides[loop] = LoopSide(loop)
    _last.loop, _last.side = ref(loop), side
    return side
