"""Waking executions: the message that has a worker take a turn."""

from __future__ import annotations

import logging
from functools import lru_cache

from pydantic_core import from_json, to_json

from dispatchers._config.api import resolve
from dispatchers._errors import ConfigurationError, ErrorCategory, RejectedError
from dispatchers._journal.values import WakeUp
from dispatchers._models.envelope import Head
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers._runtime.log import say, say_once

__all__ = ["TURN", "is_awaited", "tell_uncounted", "turn_request", "woken"]

TURN = "/turn"
"""The end of the name of the task that takes turns: `shop.checkout/turn`."""

_LATER = frozenset(
    {
        ErrorCategory.CONFIGURATION,
        ErrorCategory.MISSING_DEPENDENCY,
        ErrorCategory.NOT_FOUND,
        ErrorCategory.INVALID,
        ErrorCategory.UNSUPPORTED,
    }
)
"""Refusals that the same process would meet again: a sweep elsewhere wakes the execution."""


def is_awaited(body: object) -> bool:
    """Tell whether an envelope may be that of a step or child, without reading it."""
    # A transport gives anything.
    return isinstance(body, bytes) and b'"dispatchers-' in body


def tell_uncounted(execution: str, number: int) -> None:
    """Log that an answer was not recorded."""
    words = "an answer of step %s/%d does not count: another stands, or nothing waits for it"
    say(logging.INFO, words, execution, number)


def turn_request(wake: WakeUp) -> DispatchRequest:
    """Return the request that asks for a turn."""
    head = _turn_head(wake.workflow, wake.queue, wake.headers)
    return head.request(to_json({"execution": wake.execution}))


@lru_cache(maxsize=256)
def _turn_head(workflow: str, queue: str | None, headers: bytes) -> Head:
    """Return what all wake-ups of an execution have in common: each step asks for one."""
    known = from_json(headers) if headers else {}
    return Head(DispatchRequest(task=workflow + TURN, queue=queue, headers=known))


def woken(wake: WakeUp | None) -> bool:
    """Ask for a turn; false if it is worth asking once more."""
    if wake is None:
        return True
    try:
        response = resolve(wake.dispatcher).dispatch(turn_request(wake))
    except (ConfigurationError, RejectedError) as exc:
        return _left_to_the_sweep(wake, str(exc))
    return _is_settled(wake, response)


def _is_settled(wake: WakeUp, response: DispatchResponse) -> bool:
    # A turn that ran here and failed has said so itself.
    if response.ok or response.status is DispatchStatus.FAILED or response.error is None:
        return True
    if response.error.category in _LATER:
        return _left_to_the_sweep(wake, response.error.message)
    return False


def _left_to_the_sweep(wake: WakeUp, why: str) -> bool:
    words = "executions of %s cannot be woken from here, and wait for a sweep: %s"
    say_once(woken, logging.WARNING, words, wake.workflow, why)
    return True
