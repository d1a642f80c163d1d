"""The log of the dispatch path: one record per dispatch that is not `ok` (C4)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import hooks
from ._errors import ErrorCategory
from ._log import log, say
from ._request import DispatchRequest
from ._response import DispatchResponse

if TYPE_CHECKING:
    from ._contract import BaseDispatcher

__all__ = ["breaker", "late", "not_ok", "told"]


def told(response: DispatchResponse) -> DispatchResponse:
    """The response, once the log and the hooks know of it."""
    if response.error is not None:
        not_ok(response)
    if hooks.hooks.after_dispatch:
        hooks.tell("after_dispatch", response)
    return response


def not_ok(response: DispatchResponse) -> None:
    """One record: ERROR, because somebody's work may be lost; DEBUG while a breaker is open."""
    error = response.error
    if error is None:
        return
    quiet = error.category is ErrorCategory.CIRCUIT_OPEN
    if quiet and not log.isEnabledFor(logging.DEBUG):
        return
    request = response.request
    say(
        logging.DEBUG if quiet else logging.ERROR,
        "dispatch of %s through %r (%s) was %s: %s: %s",
        request.task if request else "a request",
        response.dispatcher,
        response.backend or "no backend",
        response.status.value,
        error.category.value,
        error.message,
        extra={"request_id": response.request_id, "category": error.category.value},
    )


def breaker(dispatcher: BaseDispatcher, change: str | None) -> None:
    """One record when a breaker opens, one with the count when it closes."""
    if change == "opened":
        say(logging.ERROR, "breaker of %r (%s) opened", dispatcher.alias, dispatcher.name)
    elif change == "closed":
        refused = dispatcher._breaker.suppressed if dispatcher._breaker else 0
        words = "breaker of %r (%s) closed; it refused %d"
        say(logging.WARNING, words, dispatcher.alias, dispatcher.name, refused)


def late(dispatcher: BaseDispatcher, request: DispatchRequest, error: BaseException | None) -> None:
    """One record when a call that was answered as `unknown` came back after all."""
    say(
        logging.INFO,
        "a dispatch of %s through %r (%s), answered as unknown, %s",
        request.task,
        dispatcher.alias,
        dispatcher.name,
        "was handed over late" if error is None else f"failed late: {type(error).__name__}",
        extra={"request_id": request.id},
    )
