"""`BaseAsyncDispatcher`: the base of adapters whose client is asyncio only."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, ClassVar, TypeVar, final

from ._bridge import bridge
from ._contract import BaseDispatcher, Item, Sent
from ._errors import ErrorCategory, RejectedError
from ._request import DispatchRequest

__all__ = ["BaseAsyncDispatcher"]

T = TypeVar("T")


class BaseAsyncDispatcher(BaseDispatcher):
    """Like `BaseDispatcher`, for a client that is asyncio only: you write `_asend`.

    Every `_asend` of the process runs on one event loop of the core's own, so that a client that
    is bound to its loop serves sync callers and any number of other loops alike.
    """

    required: ClassVar[tuple[str, ...]] = ("_asend", "_category", "_maybe_sent")

    @abstractmethod
    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        """Hand over one envelope; cancelled `timeout` seconds after it began."""

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        """Hand over several envelopes at once; one result each, in order."""
        results = await asyncio.gather(
            *(self._asend(request, body, timeout=timeout) for request, body in items),
            return_exceptions=True,
        )
        return [_no_base_exception(result) for result in results]

    @final
    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self._waited(self._asend(request, body, timeout=timeout), timeout)

    @final
    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return self._waited(self._asend_many(items, timeout=timeout), timeout)

    def _waited(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        return self._start(work, timeout).result(timeout + self._slack)

    _slack: ClassVar[float] = 0.2
    """Seconds beyond the deadline for a client that does not heed its cancellation."""

    def _start(self, work: Coroutine[Any, Any, T], timeout: float) -> Future[T]:
        return bridge.submit(_within(work, monotonic() + timeout))

    async def _bridged(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        future = asyncio.wrap_future(self._start(work, timeout))
        done, _ = await asyncio.wait([future], timeout=timeout + self._slack)
        if not done:
            raise TimeoutError("the client did not heed its cancellation")
        return future.result()

    async def _asend_bounded(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return await self._bridged(self._asend(request, body, timeout=timeout), timeout)

    async def _asend_batch(
        self, items: Sequence[Item], timeout: float
    ) -> Sequence[Sent | Exception]:
        return await self._bridged(self._asend_many(items, timeout=timeout), timeout)


async def _within(work: Coroutine[Any, Any, T], until: float) -> T:
    """The result of `work` before `until`; how late the loop was to begin counts too."""
    left = until - monotonic()
    if left <= 0:
        work.close()
        raise RejectedError(ErrorCategory.TIMEOUT, "the event loop was busy beyond the deadline")
    return await asyncio.wait_for(work, left)


def _no_base_exception(result: Sent | BaseException) -> Sent | Exception:
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result
