"""`BaseAsyncDispatcher`: the base of adapters whose client is asyncio only."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.request import DispatchRequest
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers._runtime.cancellation import CUT, within
from dispatchers._runtime.guard import GuardTimeoutError
from dispatchers._runtime.log import say
from dispatchers._runtime.loop_thread import bridge

if TYPE_CHECKING:
    from concurrent.futures import Future


T = TypeVar("T")


class BaseAsyncDispatcher(BaseDispatcher):
    """Like `BaseDispatcher`, for a client that is asyncio only: you write `_asend`.

    Every `_asend`, `_aprobe` and `_aclose` of the process runs on one event loop of the core's own,
    so that a client that is bound to its loop serves sync callers and any number of other loops.
    """

    required: ClassVar[tuple[str, ...]] = ("_asend", "_category", "_maybe_sent")

    @abstractmethod
    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        """Hand over one envelope within `timeout` seconds; soon after that it is cancelled."""

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        """Hand over several envelopes at once; one result each, in order."""
        work = (self._asend(request, body, timeout=timeout) for request, body in items)
        import asyncio

        results = await asyncio.gather(
            *(within(each, timeout + CUT / 2) for each in work), return_exceptions=True
        )
        return [_no_base_exception(result) for result in results]

    async def _aprobe(self, *, timeout: float) -> Iterable[str] | None:
        """Reach the backend, or raise; return what an operator should know, or None."""
        del timeout
        return None

    async def _aclose(self, *, timeout: float) -> int:
        """Release what is held; return how many pieces of accepted work were left undone.

        It is cancelled soon after `timeout` seconds. Not called in a process that has used no
        event loop: there is nothing to release, least of all what a parent process opened.
        """
        del timeout
        return 0

    def _probe(self, *, timeout: float) -> Iterable[str] | None:
        return self._waited(self._aprobe(timeout=timeout), timeout)

    def _close(self, timeout: float) -> int:
        if not bridge.is_started:
            return 0
        timeout = max(timeout, CUT)  # without a moment it would not even begin
        try:
            return self._waited(self._aclose(timeout=timeout), timeout)
        except (GuardTimeoutError, RejectedError) as exc:  # C8: closing keeps its timeout
            say(logging.WARNING, "closing %r (%s): %s", self.alias, self.name, exc)
            return 0

    @final
    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self._waited(self._asend(request, body, timeout=timeout), timeout)

    @final
    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return self._waited(self._asend_many(items, timeout=timeout), timeout)

    def _waited(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        call = _Call(work, timeout)
        future = call.start()
        try:
            return future.result(timeout + LOOP_CUT)
        except TimeoutError:
            # A `TimeoutError` of the client's own and one of `result` are the same class.
            if future.done():  # it is the client's own
                raise
            raise call.overdue() from None

    async def _bridged(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        call = _Call(work, timeout)
        import asyncio

        future = asyncio.wrap_future(call.start())
        done, _ = await asyncio.wait([future], timeout=timeout + LOOP_CUT)
        if not done:
            raise call.overdue()
        return future.result()

    def _hand_to_loop(
        self, call: AwaitedCall[Sent], request: DispatchRequest, body: bytes, timeout: float
    ) -> None:
        # Without a time limit: the bridge keeps it, and knows better what was begun.
        call.run(self._asend_bounded(request, body, timeout), None)

    async def _asend_bounded(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return await self._bridged(self._asend(request, body, timeout=timeout), timeout)

    async def _asend_batch(
        self, items: Sequence[Item], timeout: float
    ) -> Sequence[Sent | Exception]:
        return await self._bridged(self._asend_many(items, timeout=timeout), timeout)


LOOP_CUT = 2 * CUT
"""Seconds beyond the deadline after which a loop that a client blocks is left alone."""


class _Call(Generic[T]):
    """One call on the core's event loop."""

    def __init__(self, work: Coroutine[Any, Any, T], timeout: float) -> None:
        self._work = work
        self._until = monotonic() + timeout
        self._begun = False

    def start(self) -> Future[T]:
        """Begin it; `RejectedError` says that there was no way to."""
        try:
            return bridge.submit(self._run())
        except BaseException as exc:
            self._work.close()  # it would warn that it was never awaited
            if not isinstance(exc, RuntimeError | ImportError):
                raise
            closed = "no event loop can be started: the interpreter is shutting down"
            raise RejectedError(ErrorCategory.CLOSED, closed) from exc

    async def _run(self) -> T:
        """Run the work in what the loop's delay has left of the time."""
        left = self._until - monotonic()
        if left <= 0:
            self._work.close()
            raise _busy()
        self._begun = True
        return await within(self._work, left + CUT)

    def overdue(self) -> Exception:
        """Return the error for a call that has not returned in time."""
        # Written and read without a lock: it only turns true, and an old value is corrected by the
        # loop, which refuses to begin what is late.
        if self._begun:
            return GuardTimeoutError("the client blocks the event loop", started=True)
        return _busy()


def _busy() -> RejectedError:
    return RejectedError(ErrorCategory.TIMEOUT, "the event loop was busy beyond the deadline")


def _no_base_exception(result: Sent | BaseException) -> Sent | Exception:
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result
