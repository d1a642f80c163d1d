"""What is checked about a request before a backend is contacted (C6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import hooks
from ._envelope import encode, head
from ._errors import ErrorCategory, RejectedError, nearest
from ._request import DispatchRequest

if TYPE_CHECKING:
    from ._contract import BaseDispatcher

__all__ = ["admit", "encoded"]


def admit(dispatcher: BaseDispatcher, request: DispatchRequest) -> DispatchRequest:
    """The request after the hooks, if the dispatcher may take it.

    Raises:
        RejectedError: It may not; the error says why.
    """
    if not isinstance(request, DispatchRequest):
        raise RejectedError(ErrorCategory.INVALID, _no_request(request))
    if hooks.hooks.before_dispatch:
        request = hooks.changed(request)
    if dispatcher._closed:
        raise RejectedError(ErrorCategory.CLOSED, f"dispatcher {dispatcher.alias!r} was closed")
    if not head(request).needs <= dispatcher._supported:
        _refuse_unsupported(dispatcher, request)
    if dispatcher.options.queues:
        _refuse_unknown_queue(dispatcher, request)
    if dispatcher.capabilities.max_delay is not None:
        _refuse_long_delay(dispatcher, request)
    return request


def encoded(dispatcher: BaseDispatcher, request: DispatchRequest) -> bytes:
    """The envelope of a request, if the backend takes one of its size."""
    body = encode(request)
    limit = dispatcher.capabilities.max_size
    if limit is not None and len(body) > limit:
        raise RejectedError(
            ErrorCategory.TOO_LARGE,
            f"envelope of {len(body)} bytes, backend {dispatcher.name!r} takes {limit}: "
            "pass a reference to the data instead of the data",
        )
    return body


def _no_request(value: object) -> str:
    return (
        f"dispatch() takes a DispatchRequest, not {type(value).__name__}: "
        "make one with task.request(...)"
    )


def _refuse_unsupported(dispatcher: BaseDispatcher, request: DispatchRequest) -> None:
    waived = frozenset(dispatcher.options.waive)
    refused = sorted(head(request).needs - dispatcher._supported - waived)
    if refused:
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            f"backend {dispatcher.name!r} cannot do {', '.join(refused)}: configure another "
            f"backend for {dispatcher.alias!r}, or waive = {refused} where it may be left out",
        )


def _refuse_unknown_queue(dispatcher: BaseDispatcher, request: DispatchRequest) -> None:
    queue = dispatcher.queue_of(request)
    known = {*dispatcher.options.queues, *filter(None, [dispatcher.options.queue])}
    if queue is not None and queue not in known:
        raise RejectedError(
            ErrorCategory.NOT_FOUND,
            f"no queue {queue!r} in the configuration of {dispatcher.alias!r}"
            f"{nearest(queue, known)}",
        )


def _refuse_long_delay(dispatcher: BaseDispatcher, request: DispatchRequest) -> None:
    longest = dispatcher.capabilities.max_delay
    due = request.due
    if due is not None and longest is not None and due - request.created_at > longest:
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            f"backend {dispatcher.name!r} keeps work back for {longest} at most",
        )
