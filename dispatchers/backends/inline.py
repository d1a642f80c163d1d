"""`inline`: the task runs here, during the call, to its end.

The envelope is encoded, decoded and validated as on every other backend, so that what passes
here passes there. An async task under a sync `dispatch` runs on an event loop of its own; where a
loop is running in the calling thread, on another thread, and the call (and that loop) waits.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.in_process import InProcessDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.options import BackendOptions
from dispatchers._models.outcome import Action, Outcome
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._worker.outcomes import sent
from dispatchers._worker.runner import arun_envelope, arun_here, run_here
from dispatchers._worker.settings import run_settings
from dispatchers.backends._job import Work, follow_up

__all__ = ["InlineDispatcher", "InlineOptions"]

Waits = Literal["never", "immediate", "sleep"]

EXECUTED = Sent(status=DispatchStatus.EXECUTED)
DUPLICATE = Sent(status=DispatchStatus.DUPLICATE)


class InlineOptions(BackendOptions):
    """Options of `inline`."""

    retries: Waits = "never"
    """`never`: one attempt. `immediate`: all attempts at once. `sleep`: with their back-off."""


class InlineDispatcher(InProcessDispatcher):
    """Runs the task in the call: `EXECUTED` or `FAILED`."""

    name = "inline"
    contract = 1
    capabilities = Capabilities(runs_here=True, retries=True, confirmed=True)
    Options = InlineOptions
    options: InlineOptions

    def __init__(
        self, options: InlineOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        never = self.options.retries == "never"
        self.capabilities = self.capabilities.model_copy(update={"retries": not never})
        # Quiet: the dispatch logs the failure, and one event is one record (C4).
        self._settings = run_settings(self.options, quiet=True)
        self._letters = self.letters  # opened now: a store that is misnamed is refused here

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        outcome = run_here(body, attempt=1, settings=self._settings)
        while outcome is not None and self._again(outcome):
            time.sleep(self._pause(outcome))
            outcome = run_here(body, attempt=outcome.attempt + 1, settings=self._settings)
        return EXECUTED if outcome is None else self._answer(request, body, outcome)

    _asend_many = BaseDispatcher._asend_many  # one after the other, each awaited on the loop

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        settings = self._settings
        # Each attempt in a context of its own, where there may be several.
        if self.options.retries == "never":
            only = await arun_here(body, settings=settings)
            return EXECUTED if only is None else self._answer(request, body, only)
        outcome = await arun_envelope(body, settings=settings)
        while self._again(outcome):
            await asyncio.sleep(self._pause(outcome))
            outcome = await arun_envelope(body, attempt=outcome.attempt + 1, settings=settings)
        return self._answer(request, body, outcome)

    def _answer(self, request: DispatchRequest, body: bytes, outcome: Outcome) -> Sent:
        if self._letters is not None and outcome.action is Action.DEAD:
            follow_up(Work(request, body, self.queue_of(request) or ""), outcome, self._letters)
        return sent(outcome)

    def _again(self, outcome: Outcome) -> bool:
        return self.options.retries != "never" and outcome.action is Action.RETRY

    def _pause(self, outcome: Outcome) -> float:
        return outcome.after if self.options.retries == "sleep" else 0.0
