"""RQ's own jobs: functions that exist already, dispatched to by their import path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from rq.decorators import job as rq_job
from rq.utils import import_attribute

from dispatchers import (
    ConfigurationError,
    DispatchRequest,
    ErrorCategory,
    RejectedError,
    Sent,
)
from dispatchers.delivery import called
from dispatchers.native import NativeCall


class NativeJob(NativeCall):
    """Dispatches one of RQ's own jobs; made by `native`."""

    backend = "rq"
    kind = "job"


def native(
    function: Callable[..., Any] | str, *, dispatcher: str = "default", **options: Any
) -> NativeJob:
    """Return a dispatchable form of a function that runs with RQ already.

    Its job is the one that `enqueue` writes. What becomes of it, retries included, is up to RQ.
    Queue, timeout and time to live of RQ's decorator `@job` apply, unless they are given here.

    Args:
        function: The function, or its import path where this process does not have it.

        dispatcher: The alias of a dispatcher of `rq`.

        options: `queue`, `delay`, `eta`, `expires`, `time_limit`, `deadline`, `deduplicate` or
            `idempotency_key`, as a request takes them.

    Raises:
        ConfigurationError: Its `@job` has options that a request has no room for.
    """
    routed = {} if isinstance(function, str) else _routing(function)
    return NativeJob(path_of(function), dispatcher, {**routed, **options})


def path_of(function: Callable[..., Any] | str) -> str:
    """Return the path that a worker imports it by."""
    if isinstance(function, str):
        return function
    return f"{function.__module__}.{function.__qualname__}"


def _routing(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the options that RQ's decorator `@job` gave a function.

    Raises:
        ConfigurationError: It has some that cannot be kept.
    """
    delay = getattr(function, "enqueue", None) or getattr(function, "delay", None)
    if not inspect.isfunction(delay):
        return {}
    # RQ keeps the decorator in a closure only (RQ 2).
    found: Any = inspect.getclosurevars(delay).nonlocals.get("self")
    if not isinstance(found, rq_job):
        return {}
    if lost := [name for name in UNKEPT if getattr(found, name, None)]:
        raise ConfigurationError(
            f"job {path_of(function)!r}: its @job has {', '.join(lost)}, which cannot be handed "
            "over: call its own enqueue, or make it a task",
        )
    routed = {
        "queue": getattr(found.queue, "name", found.queue),
        "time_limit": found.timeout,
        "expires": None if found.ttl is None else timedelta(seconds=found.ttl),
    }
    return {name: value for name, value in routed.items() if value is not None}


UNKEPT = ("depends_on", "at_front", "meta", "retry", "on_success", "on_failure", "on_stopped")
"""Options of `@job` that a request has no room for."""


def run_in_the_call(request: DispatchRequest) -> Sent:
    """Call the function that a job of RQ's own names, for `is_async=False`.

    Raises:
        RejectedError: There is none.
    """
    try:
        function: Any = import_attribute(request.task)
    except (ImportError, AttributeError, ValueError) as exc:
        message = f"no function {request.task!r} can be imported: {type(exc).__name__}"
        raise RejectedError(ErrorCategory.NOT_FOUND, message) from exc
    return called(request, function)
