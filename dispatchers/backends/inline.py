"""`inline`: the task runs here, during the call, to its end.

The envelope is encoded, decoded and validated as on every other backend, so that what passes
here passes there. An async task under a sync `dispatch` runs on an event loop of its own; where a
loop is running in the calling thread, on another thread, and the call (and that loop) waits.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Literal

from dispatchers._capabilities import Capabilities
from dispatchers._contract import BaseDispatcher, Sent
from dispatchers._dead import DeadLetterStore
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._model import build
from dispatchers._options import BackendOptions
from dispatchers._outcome import Action, Outcome, Reason
from dispatchers._request import DispatchRequest
from dispatchers._response import DispatchFailure, DispatchStatus
from dispatchers._run import arun_envelope, run_here
from dispatchers._stores import dead_letters, run_settings
from dispatchers.backends._work import Work, follow_up

__all__ = ["InlineDispatcher", "InlineOptions"]

Waits = Literal["never", "immediate", "sleep"]

EXECUTED = Sent(status=DispatchStatus.EXECUTED)
DUPLICATE = Sent(status=DispatchStatus.DUPLICATE)


class InlineOptions(BackendOptions):
    """Options of `inline`."""

    retries: Waits = "never"
    """`never`: one attempt. `immediate`: all attempts at once. `sleep`: with their back-off."""


class InlineDispatcher(BaseDispatcher):
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
        self._settings = replace(run_settings(self.options), quiet=True)
        letters = self.options.dead_letters
        self._letters = None if letters is None else dead_letters(letters)

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        outcome = run_here(body, attempt=1, settings=self._settings)
        while outcome is not None and self._again(outcome):
            time.sleep(self._pause(outcome))
            outcome = run_here(body, attempt=outcome.attempt + 1, settings=self._settings)
        return EXECUTED if outcome is None else self._answer(request, body, outcome)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del timeout
        settings = self._settings
        outcome = await arun_envelope(body, settings=settings)
        while self._again(outcome):
            await asyncio.sleep(self._pause(outcome))
            outcome = await arun_envelope(body, attempt=outcome.attempt + 1, settings=settings)
        return self._answer(request, body, outcome)

    def _dead_letters(self) -> DeadLetterStore | None:
        return self._letters

    def _answer(self, request: DispatchRequest, body: bytes, outcome: Outcome) -> Sent:
        if self._letters is not None and outcome.action is Action.DEAD:
            follow_up(Work(request, body, self.queue_of(request) or ""), outcome, self._letters)
        return sent(outcome)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        del exc
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        del exc
        return False

    def _again(self, outcome: Outcome) -> bool:
        return self.options.retries != "never" and outcome.action is Action.RETRY

    def _pause(self, outcome: Outcome) -> float:
        return outcome.after if self.options.retries == "sleep" else 0.0


def sent(outcome: Outcome) -> Sent:
    """What an outcome in this process is as an answer.

    Raises:
        RejectedError: The work did not run.
    """
    if outcome.reason in (Reason.SUCCEEDED, Reason.DISCARDED):
        return EXECUTED
    if outcome.reason is Reason.DUPLICATE:
        return DUPLICATE
    if outcome.reason in NOT_RUN:
        error = outcome.error
        message = error.message if error and error.message else f"not run: {outcome.reason.value}"
        raise RejectedError(NOT_RUN[outcome.reason], message)
    return Sent(status=DispatchStatus.FAILED, error=_failure(outcome), exception=outcome.exception)


NOT_RUN = {
    Reason.UNKNOWN_TASK: ErrorCategory.NOT_FOUND,
    Reason.INVALID_ARGUMENTS: ErrorCategory.INVALID,
    Reason.NO_ENVELOPE: ErrorCategory.INVALID,
    Reason.EXPIRED: ErrorCategory.INVALID,
    Reason.IN_FLIGHT: ErrorCategory.CONFLICT,
    Reason.STORE_UNAVAILABLE: ErrorCategory.UNAVAILABLE,
}


def _failure(outcome: Outcome) -> DispatchFailure:
    kind = outcome.error.exception_type if outcome.error else None
    where = outcome.error.where if outcome.error else ""
    values = {
        "category": ErrorCategory.HANDLER,
        "retryable": False,
        "exception_type": kind,
        "message": f"task {outcome.task!r} failed with {kind} at {where}, "
        f"attempt {outcome.attempt} of {outcome.max_attempts}",
    }
    return build(DispatchFailure, values)
