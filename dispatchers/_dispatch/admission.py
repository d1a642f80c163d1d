"""Checks on a request before a backend is contacted, and its envelope (C6)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple, Self, cast

from dispatchers._dispatch import hook_registry as hooks
from dispatchers._dispatch.protocol import is_instance
from dispatchers._errors import ErrorCategory, RejectedError, nearest
from dispatchers._models.capabilities import OPTIONS, Capabilities
from dispatchers._models.envelope import encode, head
from dispatchers._models.options import BackendOptions
from dispatchers._models.request import DispatchRequest

Admitted = tuple[DispatchRequest, bytes, tuple[str, ...]]
"""A request as the hooks left it, its envelope, and the options that are waived."""


class Limits(NamedTuple):
    """The requests that a dispatcher takes."""

    alias: str
    backend: str
    supported: frozenset[str]
    waive: frozenset[str]
    queue: str | None
    queues: frozenset[str]
    max_delay: timedelta | None
    max_size: int | None

    @classmethod
    def of(
        cls, alias: str, backend: str, options: BackendOptions, capabilities: Capabilities
    ) -> Self:
        """Return what options and capabilities say together."""
        supported = frozenset(name for name in OPTIONS if capabilities.supports(name))
        return cls(
            alias,
            backend,
            supported,
            frozenset(options.waive),
            options.queue,
            frozenset(options.queues),
            # A backend that delays nothing has no longest delay, whatever its class says.
            capabilities.max_delay if "delay" in supported else None,
            capabilities.max_size,
        )


def admit(limits: Limits, request: DispatchRequest) -> Admitted:
    """Run the hooks on a request and encode it, if the dispatcher may take it.

    Raises:
        RejectedError: It may not; the error says why.
    """
    # The exact type first, which needs no call.
    if type(request) is not DispatchRequest and not is_instance(request, DispatchRequest):
        raise RejectedError(ErrorCategory.INVALID, _not_a_request(request))
    # Before everything else: a hook may change what is checked below.
    if hooks.hooks.before_dispatch:
        request = hooks.changed(request)
    known = head(request)
    # The usual request needs nothing special: one comparison of two small sets.
    waived = () if known.needs <= limits.supported else _waived(limits, known.needs)
    if limits.queues:
        _refuse_unknown_queue(limits, request)
    if limits.max_delay is not None:
        _refuse_long_delay(limits, limits.max_delay, request)
    body = encode(request, known)
    # Refused here, not by the backend: its error would not say what to do.
    if limits.max_size is not None and len(body) > limits.max_size:
        raise RejectedError(
            ErrorCategory.TOO_LARGE,
            f"envelope of {len(body)} bytes, backend {limits.backend!r} takes {limits.max_size}: "
            "pass a reference to the data instead of the data",
        )
    return request, body, waived


NO_BATCH: tuple[type, ...] = (DispatchRequest, str, bytes)
"""Iterables that are not several requests."""


def iterated(requests: object) -> Iterable[DispatchRequest]:
    """Return the requests that `dispatch_many` was given.

    Raises:
        RejectedError: It was given something else.
    """
    if hasattr(type(requests), "__iter__") and not any(is_instance(requests, k) for k in NO_BATCH):
        return cast("Iterable[DispatchRequest]", requests)
    raise RejectedError(
        ErrorCategory.INVALID,
        f"dispatch_many() takes requests, not {type(requests).__name__}: pass a list of them",
    )


def _not_a_request(value: object) -> str:
    return (
        f"dispatch() takes a DispatchRequest, not {type(value).__name__}: "
        "make one with task.request(...)"
    )


def _waived(limits: Limits, needs: frozenset[str]) -> tuple[str, ...]:
    refused = sorted(needs - limits.supported - limits.waive)
    if refused:
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            f"backend {limits.backend!r} cannot do {', '.join(refused)}: configure another "
            f"backend for {limits.alias!r}, or waive = {refused} where it may be left out",
        )
    return tuple(sorted(needs - limits.supported))


def _refuse_unknown_queue(limits: Limits, request: DispatchRequest) -> None:
    queue = request.queue or limits.queue
    if queue is not None and queue != limits.queue and queue not in limits.queues:
        known = {*limits.queues, *filter(None, [limits.queue])}
        raise RejectedError(
            ErrorCategory.NOT_FOUND,
            f"no queue {queue!r} in the configuration of {limits.alias!r}{nearest(queue, known)}",
        )


def _refuse_long_delay(limits: Limits, longest: timedelta, request: DispatchRequest) -> None:
    due = request.due
    if due is not None and due - request.created_at > longest:
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            f"backend {limits.backend!r} keeps work back for {longest} at most",
        )
