"""Whether a task and the dispatcher it goes through fit: known without a dispatch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import ValidationError

from dispatchers._contract import BaseDispatcher
from dispatchers._envelope import head
from dispatchers._errors import ConfigurationError, RejectedError, nearest
from dispatchers._instances import resolve, state
from dispatchers._options import options_error
from dispatchers._payload_errors import DeclarationError
from dispatchers._request import Backoff, DispatchRequest
from dispatchers._task import AnyTask

from ._durations import spoken

__all__ = ["Misfit", "misfits", "sample", "waits"]


class Misfit(NamedTuple):
    """Something that does not fit."""

    severity: Literal["warning", "error"]
    """With an error, dispatches are rejected, or work is not run as the task says."""
    message: str


def sample(task: AnyTask) -> DispatchRequest:
    """A request as each dispatch of the task makes one, without its arguments.

    Raises:
        ConfigurationError: The task's own options, or the host's, do not fit.
    """
    values = {key: value for key, value in task._values().items() if key != "dispatcher"}
    try:
        return DispatchRequest.model_validate({**values, "task": task.name})
    except ValidationError as exc:
        raise options_error(exc, DispatchRequest, f"task {task.name!r}") from None


def misfits(task: AnyTask) -> Iterator[Misfit]:
    """What is wrong with a task on the dispatcher that it goes through now."""
    try:
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
    refused = sorted(head(request).needs - dispatcher._supported - waived)
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
    """Attempts that are never made, and waits that are longer than the backend can keep work."""
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
    """Seconds before each further attempt, without jitter; at most a thousand of them."""
    steady = backoff.model_copy(update={"jitter": 0.0})
    return [steady.after(number) for number in range(1, min(attempts, 1001))]
