"""The run of an envelope by the worker of a backend of `django.tasks`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from time import sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatchers import (
    ConfigurationError,
    DeadLetter,
    Outcome,
    get_dispatcher,
    run_envelope,
    run_settings,
)
from dispatchers.delivery import Delivery, DeliveryCount, process

from ._errors import WorkFailedError

if TYPE_CHECKING:
    from ._dispatcher import DjangoTasksDispatcher

__all__ = ["Work", "in_the_call", "run"]

LONGEST_HOLD = 5.0
"""Seconds that a run waits for its work to be due, before the work is handed over again."""
RETRY_DELAY = 5.0
"""Seconds before work comes back whose settlement failed."""


class InTheCall(NamedTuple):
    """A hand-over, for a run that is part of it, as under `ImmediateBackend`."""

    dispatcher: DjangoTasksDispatcher
    outcomes: list[Outcome]

    def run(self, body: bytes) -> Outcome:
        """Run an envelope once; the dispatch says, and logs, what became of it."""
        settings = run_settings(self.dispatcher.options, quiet=True)
        self.outcomes.append(run_envelope(body, settings=settings))
        return self.outcomes[-1]


_in_the_call: ContextVar[InTheCall | None] = ContextVar(
    "dispatchers_django_tasks_in_the_call", default=None
)


@contextmanager
def in_the_call(dispatcher: DjangoTasksDispatcher) -> Generator[list[Outcome]]:
    """Hand over, and have the outcome noted if the work runs in the call."""
    call = InTheCall(dispatcher, [])
    token = _in_the_call.set(call)
    try:
        yield call.outcomes
    finally:
        _in_the_call.reset(token)


class Work(NamedTuple):
    """A piece of work, as it is handed over."""

    body: bytes
    """The envelope."""
    task: str
    """The name of the task."""
    queue: str
    """The queue."""
    priority: int = 0
    """From -100 to 100, as in Django."""
    counts: DeliveryCount = DeliveryCount()
    """The attempt and its deliveries."""


def run(
    context: Any = None, *, task: str, body: str, alias: str, tasks: str, counts: dict[str, Any]
) -> str:
    """Run an envelope, and have done what follows from it before this ends.

    Args:
        context: Django's, where the backend gives it: how often this work was begun, its queue.

        task: The name of the task.

        body: The envelope.

        alias: The dispatcher's, whose settings apply if it is configured here.

        tasks: The alias in `settings.TASKS` of the backend, which gets the next attempt.

        counts: The attempt and deliveries, as `DeliveryCount.headers`.

    Returns:
        Why the run ended so, such as `succeeded` or `failed`; with `failed`, the next attempt is
        handed over already.

    Raises:
        WorkFailedError: It failed for the last time, or what follows could not be handed over.
    """
    if (call := _in_the_call.get()) is not None:
        return call.run(body.encode()).reason.value
    dispatcher = _dispatcher(alias, tasks)
    origin = None if context is None else context.task_result.task
    work = Work(
        body.encode(),
        task,
        origin.queue_name if origin else dispatcher.options.queue or "default",
        origin.priority if origin else 0,
        DeliveryCount.read(counts),
    )
    if _is_early(work):
        dispatcher.hand_over(work)
        return "early"
    delivery = TaskDelivery(dispatcher, work, context)
    outcome = process(delivery, run_settings(dispatcher.options), letters=dispatcher.letters)
    if delivery.problem:
        raise WorkFailedError(delivery.problem)
    return outcome.reason.value


def _is_early(work: Work) -> bool:
    """Wait until work is due, a short while; return True if it still is not."""
    # RQ's scheduler cuts fractions of a second, and some backends cannot defer at all.
    sleep(min(work.counts.wait, LONGEST_HOLD))
    return work.counts.wait > 0


def _dispatcher(alias: str, tasks: str) -> DjangoTasksDispatcher:
    """Return the dispatcher that is configured for this work, else one without options."""
    from ._dispatcher import DjangoTasksDispatcher

    try:
        found = get_dispatcher(alias)
    except ConfigurationError:
        found = None
    if isinstance(found, DjangoTasksDispatcher) and found.options.tasks == tasks:
        return found
    return DjangoTasksDispatcher(alias=alias, tasks=tasks)


class TaskDelivery(Delivery):
    """One result of `django.tasks` that runs; what comes again is a new one."""

    def __init__(self, dispatcher: DjangoTasksDispatcher, work: Work, context: Any) -> None:
        self._dispatcher = dispatcher
        self._work = work
        self.body, self.task, self.queue = work.body, work.task, work.queue
        self.attempt = work.counts.attempt
        # A backend that starts work again after its worker died tells so by its own count.
        again = 0 if context is None else context.attempt - 1
        self.deliveries = work.counts.deliveries + max(0, again)
        self.id = "" if context is None else context.task_result.id
        self.problem = "it could not be settled, and its envelope is in this result's arguments"

    def complete(self, outcome: Outcome) -> None:
        """Leave it to the backend, which notes that the run has returned."""
        del outcome
        self.problem = ""

    def retry(self, outcome: Outcome) -> None:
        """Hand the next attempt over; this one is a run that has returned."""
        self._hand_over(self._work.counts.next_attempt(outcome))

    def give_back(self, after: float) -> None:
        """Hand the same attempt over."""
        self._hand_over(self._work.counts.held_back(after))

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Have the backend's result fail; its arguments hold the envelope."""
        del letter
        self.problem = f"{outcome.task or 'a message'} is dead-lettered: {outcome.reason.value}"

    def abandon(self) -> None:
        """Hand the same attempt over as a further delivery: its worker may be ending by it."""
        again = self._work.counts._replace(deliveries=self.deliveries + 1)
        self._hand_over(again.held_back(RETRY_DELAY))

    def _hand_over(self, counts: DeliveryCount) -> None:
        self._dispatcher.hand_over(self._work._replace(counts=counts))
        self.problem = ""
