"""Misfits between a task and its dispatcher, found without a dispatch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import ValidationError

from dispatchers._config.api import resolve, state
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, RejectedError, nearest
from dispatchers._models.envelope import head
from dispatchers._models.request import Backoff, DispatchRequest
from dispatchers._models.validation import options_error
from dispatchers._payload.errors import DeclarationError
from dispatchers._tasks.task import AnyTask

from ._durations import spoken

__all__ = ["Misfit", "misfits", "sample", "waits"]


class Misfit(NamedTuple):
    """Something that does not fit."""

    severity: Literal["warning", "error"]
    """With an error, dispatches are rejected, or work is not run as the task says."""
    message: str


def sample(task: AnyTask) -> DispatchRequest:
    """Return a request like the task's own, without arguments.

    Raises:
        ConfigurationError: The task's own options, or the host's, do not fit.
    """
    values = {key: value for key, value in task._values().items() if key != "dispatcher"}
    try:
        return DispatchRequest.model_validate({**values, "task": task.name})
    except ValidationError as exc:
        raise options_error(exc, DispatchRequest, f"task {task.name!r}") from None


def misfits(task: AnyTask) -> Iterator[Misfit]:
    """Return the problems of a task on its present dispatcher."""
    try:
        # First: with a declaration that does not hold, the rest would be beside the point.
        task.codec.check()
        yield from _routed(task)
    except (DeclarationError, ConfigurationError) as exc:
        yield Misfit("error", str(exc))
    if not task.implemented:
        yield Misfit(
            "warning",
            f"declared by {task.origin} and implemented by no module that is configured: "
            "a worker with these modules would hand it back",
        )


def _routed(task: AnyTask) -> Iterator[Misfit]:
    request = sample(task)
    alias = task._values().get("dispatcher") or "default"
    if alias not in state.snapshot.aliases():
        yield Misfit(
            "warning",
            f"its dispatcher {alias!r} is not configured: it goes through 'default'",
        )
    try:
        dispatcher = resolve(alias)
    except (ConfigurationError, RejectedError):
        return  # said of the dispatcher already
    yield from _refused(request, dispatcher)
    yield from _shortened(task, request, dispatcher)


def _refused(request: DispatchRequest, dispatcher: BaseDispatcher) -> Iterator[Misfit]:
    waived = frozenset(dispatcher.options.waive)
    refused = sorted(head(request).needs - dispatcher._limits.supported - waived)
    if refused:
        yield Misfit(
            "error",
            f"every dispatch is rejected: backend {dispatcher.name!r} cannot do "
            f"{', '.join(refused)}; configure another backend for {dispatcher.alias!r}, "
            f"or waive = {refused}",
        )
    queue, known = dispatcher.queue_of(request), dispatcher.options.queues
    if known and queue is not None and queue not in {*known, dispatcher.options.queue}:
        yield Misfit(
            "error",
            f"every dispatch is rejected: no queue {queue!r} in the configuration of "
            f"{dispatcher.alias!r}{nearest(queue, known)}",
        )


def _shortened(
    task: AnyTask, request: DispatchRequest, dispatcher: BaseDispatcher
) -> Iterator[Misfit]:
    """Warn of attempts never made, and of waits beyond the backend's limit."""
    attempts = request.max_attempts or task.max_attempts
    if attempts > 1 and not dispatcher.capabilities.retries:
        yield Misfit(
            "warning",
            f"backend {dispatcher.name!r} makes one attempt, the task asks for {attempts}",
        )
    longest = max(waits(attempts, request.backoff or task.backoff), default=0.0)
    limit = dispatcher.capabilities.max_delay
    if limit is not None and longest > limit.total_seconds():
        yield Misfit(
            "error",
            f"its back-off waits up to {spoken(longest)}, backend {dispatcher.name!r} keeps work "
            f"back for {spoken(limit)} at most: lower the back-off's maximum",
        )


def waits(attempts: int, backoff: Backoff) -> list[float]:
    """Return the waits before further attempts, without jitter, at most 1000."""
    # Without jitter, so that the same configuration always gives the same output.
    steady = backoff.model_copy(update={"jitter": 0.0})
    return [steady.after(number) for number in range(1, min(attempts, 1001))]
