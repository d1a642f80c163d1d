"""Dispatchers that hold work until something has happened: a commit, a response that was sent.

For the glue to frameworks. A subclass says where requests wait, and calls `release` or `drop`::

    class AfterCommit(HoldingDispatcher):
        name = "after_commit"
        contract = 1

        def _hold(self, request):
            self.connection.on_commit(lambda: self.release([request]))
"""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import ClassVar, cast

from dispatchers._dispatch import hook_registry as hooks
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.in_process import InProcessDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._models.base import build
from dispatchers._models.options import BackendOptions
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchResponses, DispatchStatus
from dispatchers._runtime.cancellation import shielded
from dispatchers._runtime.log import say

from ._errors import ErrorCategory, RejectedError

__all__ = ["HoldingDispatcher", "OnResult"]

OnResult = Callable[[DispatchResponse], object]
"""Called with the final response of each request that was held."""

DEFERRED = Sent(status=DispatchStatus.DEFERRED, confirmed=False, durable=False)


class HoldingDispatcher(InProcessDispatcher):
    """Answers `DEFERRED`, and hands over to another dispatcher later.

    A request is encoded and checked at once, against what the other dispatcher can do, so that
    what does not fit is `REJECTED` while the caller looks. Hooks that change a request see it once.

    Args:
        to: The dispatcher that gets the work later. Not owned, never closed.

        on_result: Called with each final response. What it raises is logged, and goes nowhere.
    """

    required: ClassVar[tuple[str, ...]] = ("_hold",)

    def __init__(self, to: BaseDispatcher, on_result: OnResult | None = None) -> None:
        # Before the base class's constructor, which reads them.
        self.capabilities = to.capabilities.model_copy(
            update={"runs_here": False, "confirmed": False, "durable": False, "worker": False}
        )
        super().__init__(_options(to.options), alias=to.alias)
        self._to = to
        self._on_result = on_result

    @abstractmethod
    def _hold(self, request: DispatchRequest) -> None:
        """Keep a request until it is released or dropped; raise `RejectedError` if it cannot be."""

    def release(self, requests: Iterable[DispatchRequest]) -> DispatchResponses:
        """Hand over what was held, in one round trip where the backend can. Never raises."""
        # A copy, as an iterator would be used up by the first to look.
        held = list(requests)
        with hooks.seen(held):
            return self._reported(self._to.dispatch_many(held))

    async def arelease(self, requests: Iterable[DispatchRequest]) -> DispatchResponses:
        """The same without blocking the event loop; `on_result` may be async.

        Cancelling it stops neither the hand-over nor the reports.
        """
        return await shielded(self._arelease(list(requests)))

    async def _arelease(self, held: Sequence[DispatchRequest]) -> DispatchResponses:
        with hooks.seen(held):
            return await self._areported(await self._to.adispatch_many(held))

    def drop(self, requests: Iterable[DispatchRequest], why: str) -> DispatchResponses:
        """Hand nothing over, and report each request as `REJECTED`, category `closed`."""
        return self._reported(self._dropped(requests, why))

    async def adrop(self, requests: Iterable[DispatchRequest], why: str) -> DispatchResponses:
        """The same for an `on_result` that may be async."""
        return await shielded(self._areported(self._dropped(requests, why)))

    def _dropped(self, requests: Iterable[DispatchRequest], why: str) -> DispatchResponses:
        error, started = RejectedError(ErrorCategory.CLOSED, why), monotonic()
        dropped = self._refused(list(requests), error, started, contacted=False, hurried=False)
        self._announce_all(dropped)
        return DispatchResponses(dropped)

    def _reported(self, responses: DispatchResponses) -> DispatchResponses:
        for response in responses:
            told = self._tell(response)
            if inspect.iscoroutine(told):
                # Else Python warns of a coroutine that was never awaited, at a place that says
                # nothing.
                told.close()
                say(logging.ERROR, "on_result is async, and nothing awaits it here")
        return responses

    async def _areported(self, responses: DispatchResponses) -> DispatchResponses:
        for response in responses:
            await _awaited(self._tell(response))
        return responses

    def _tell(self, response: DispatchResponse) -> object:
        if self._on_result is None:
            return None
        try:
            return self._on_result(response)
        except Exception as exc:  # noqa: BLE001 - it is told what happened, and changes nothing
            _failed(exc)
            return None

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self._hold(request)
        return DEFERRED


def _options(given: BackendOptions) -> BackendOptions:
    """Return the options that all backends share, without the circuit breaker."""
    values = {name: getattr(given, name) for name in BackendOptions.model_fields}
    # The other dispatcher has the breaker: holding work contacts nothing that could fail.
    return build(BackendOptions, {**values, "breaker": False})


async def _awaited(result: object) -> None:
    if not inspect.isawaitable(result):
        return
    try:
        await cast("Awaitable[object]", result)
    except Exception as exc:  # noqa: BLE001 - it is told what happened, and changes nothing
        _failed(exc)


def _failed(exc: Exception) -> None:
    say(logging.ERROR, "on_result raised %s; the dispatch stands", type(exc).__name__)
