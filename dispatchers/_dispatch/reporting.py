"""The log of the dispatch path: one record per dispatch that is not `ok` (C4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic

from dispatchers._dispatch import hook_registry as hooks
from dispatchers._dispatch.circuit_breaker import Transition
from dispatchers._dispatch.error_mapping import without_contact
from dispatchers._dispatch.protocol import is_instance
from dispatchers._errors import ErrorCategory
from dispatchers._models.base import build
from dispatchers._models.fields import new_id
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchFailure, DispatchResponse, DispatchStatus
from dispatchers._runtime.log import is_said, say


def unsent(
    alias: str,
    backend: str,
    request: object,
    status: DispatchStatus,
    error: DispatchFailure,
    exc: Exception | None,
    elapsed: float,
) -> DispatchResponse:
    """Return a response that is not `ok`."""
    known = request if is_instance(request, DispatchRequest) else None
    values = {
        "request_id": known.id if known else new_id(),
        "task_id": None,
        "dispatcher": alias,
        "backend": backend,
        "status": status,
        "confirmed": False,
        "durable": False,
        "waived": (),
        "passed": (),
        "error": error,
        "elapsed": elapsed,
        "request": known,
    }
    return build(DispatchResponse, values, None if exc is None else {"_exception": exc})


def refused(alias: str, backend: str, exc: Exception, started: float) -> DispatchResponse:
    """Return the answer to a dispatch that never reached a dispatcher, logged and told."""
    return told(unrouted(alias, backend, exc, started))


def unrouted(alias: str, backend: str, exc: Exception, started: float) -> DispatchResponse:
    """Return the answer to a dispatch that never reached a dispatcher, not told yet."""
    status, error = without_contact(exc)
    return unsent(alias, backend, None, status, error, exc, monotonic() - started)


def told(response: DispatchResponse) -> DispatchResponse:
    """Return the response, once the log and the hooks know of it."""
    error, hears = response.error, hooks.hooks.after_dispatch
    # Asked first: a dispatch that went well, without hooks, must not pay for a call.
    if (error is None and not hears) or hooks.is_inner(response.request):
        return response
    if error is not None:
        log_failure(response)
    if hears:
        hooks.tell("after_dispatch", response)
    return response


MAX_RECORDS = 20
"""Records of one batch: a log that drowns in one cause hides the others."""


def told_all(responses: Sequence[DispatchResponse]) -> None:
    """Tell log and hooks of a batch: a record for each cause, not for each item."""
    if len(responses) and hooks.is_inner(responses[0].request):
        return
    causes: dict[tuple[object, ...], tuple[DispatchResponse, int]] = {}
    for response in responses:
        if (error := response.error) is not None:
            task = response.request and response.request.task
            cause = (task, response.status, error.category, error.message)
            first, count = causes.get(cause, (response, 0))
            causes[cause] = first, count + 1
    for first, count in list(causes.values())[:MAX_RECORDS]:
        log_failure(first, count - 1)
    if len(causes) > MAX_RECORDS:
        rest = sum(count for _, count in list(causes.values())[MAX_RECORDS:])
        say(logging.ERROR, "%d more dispatches of the batch failed for other causes", rest)
    if hooks.hooks.after_dispatch:
        for response in responses:
            hooks.tell("after_dispatch", response)


def log_failure(response: DispatchResponse, more: int = 0) -> None:
    """Log one record: ERROR, because work may be lost; DEBUG while a breaker is open."""
    error = response.error
    if error is None:
        return
    quiet = error.category is CIRCUIT_OPEN
    # While a breaker is open this runs for every dispatch: nothing is formatted in vain.
    if quiet and not is_said(logging.DEBUG):
        return
    request = response.request
    say(
        logging.DEBUG if quiet else logging.ERROR,
        "dispatch of %s through %r (%s) %s: %s: %s%s",
        request.task if request else "a request",
        response.dispatcher,
        response.backend or "no backend",
        "failed" if response.status is FAILED else f"was {response.status.value}",
        error.category.value,
        error.message,
        f" (and {more} more of the batch)" if more else "",
        extra={"request_id": response.request_id, "category": error.category.value},
    )


# Looked up once: an enum's members are attributes that Python computes.
FAILED = DispatchStatus.FAILED
CIRCUIT_OPEN = ErrorCategory.CIRCUIT_OPEN


def breaker(alias: str, backend: str, change: Transition, suppressed: int) -> None:
    """Log one record when a breaker opens, one with the count when it closes."""
    if change == "opened":
        say(logging.ERROR, "breaker of %r (%s) opened", alias, backend)
    else:
        say(logging.WARNING, "breaker of %r (%s) closed; it refused %d", alias, backend, suppressed)


def uncounted(alias: str, backend: str, reason: str) -> None:
    """Log one record when a backend could not be asked for its figures, or for some of them."""
    say(logging.WARNING, "figures of %r (%s) are not known, or not all: %s", alias, backend, reason)


def late(alias: str, backend: str, request: DispatchRequest, error: BaseException | None) -> None:
    """Log one record when a call that was answered as `unknown` came back after all."""
    say(
        logging.INFO,
        "a dispatch of %s through %r (%s), answered as unknown, %s",
        request.task,
        alias,
        backend,
        "was handed over late" if error is None else f"failed late: {type(error).__name__}",
        extra={"request_id": request.id},
    )
