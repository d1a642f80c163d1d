"""A coroutine that refuses to wait for what is not durable."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class GuardedCoroutine(Coroutine[Any, Any, T]):
    """Coroutine of a workflow's task, which may wait for futures of its own loop only.

    Args:
        inner: The coroutine.

        loop: The loop of the workflow.

        refuse: Makes the error to raise in it for what else it waits for.

        note: Is told what it raises that is no `Exception`.
    """

    __slots__ = ("_loop", "_note", "_refuse", "_send", "inner")

    def __init__(
        self,
        inner: Coroutine[Any, Any, T],
        loop: object,
        refuse: Callable[[object], BaseException],
        note: Callable[[BaseException], object],
    ) -> None:
        self.inner = inner
        self._send = inner.send
        self._loop = loop
        self._refuse = refuse
        self._note = note

    def send(self, value: Any, /) -> Any:
        """Run on until it waits."""
        try:
            waited = self._send(value)
        except Exception:  # its end among them
            raise
        except BaseException as exc:
            self._note(exc)
            raise
        if waited is None or getattr(waited, "_loop", None) is self._loop:
            return waited
        unblock(waited)
        return self.throw(self._refuse(waited))

    def throw(self, *exc: Any) -> Any:
        """Raise an exception where it waits, and run on until it waits."""
        try:
            waited = self.inner.throw(*exc)
        except BaseException as raised:
            self._note(raised)
            raise
        if waited is None or getattr(waited, "_loop", None) is self._loop:
            return waited
        unblock(waited)
        return self.throw(self._refuse(waited))

    def close(self) -> None:
        """Close the coroutine."""
        self.inner.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self.inner.__await__()

    def __getattr__(self, name: str) -> Any:
        """Return `cr_frame` and its like, by which asyncio and debuggers show it."""
        return getattr(self.inner, name)


class StepCoroutine(Coroutine[Any, Any, T]):
    """Call of an async task in a workflow: a step, which is asked for when it is awaited.

    An object of our own, as a coroutine that is dropped while it is parked would warn.
    """

    __slots__ = ("_started", "_waiting")

    def __init__(self, step: Callable[[], Any]) -> None:
        self._waiting: Generator[Any, None, T] | None = None
        self._started = step

    def send(self, value: Any, /) -> Any:
        """Ask for the step, then wait for its result."""
        return self._iterator().send(value)

    def throw(self, *exc: Any) -> Any:
        """Raise an exception where it waits."""
        if self._waiting is None:
            self._waiting = _nothing()
        return self._waiting.throw(*exc)

    def close(self) -> None:
        """Close it."""
        if self._waiting is not None:
            self._waiting.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self._iterator()

    def _iterator(self) -> Generator[Any, None, T]:
        if self._waiting is None:
            self._waiting = _waited(self._started)
        return self._waiting


def _waited(step: Callable[[], Any]) -> Generator[Any, None, Any]:
    return (yield from step().__await__())


def _nothing() -> Generator[Any, None, Any]:
    yield


def unblock(waited: Any) -> None:
    """Note that a wait was seen, as asyncio's tasks do: awaited again, it would raise at once."""
    if getattr(waited, "_asyncio_future_blocking", None):
        waited._asyncio_future_blocking = False
