"""The producer's side: envelopes as work of a backend of `django.tasks`."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from uuid import uuid4

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections, connections
from django.utils import timezone
from pydantic import Field

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    ErrorCategory,
    RejectedError,
    Sent,
)
from dispatchers.delivery import DeliveryCount, sent
from dispatchers.net import ForkGate, register_closer

from ._api import (
    LIBRARY,
    BaseTaskBackend,
    ImmediateBackend,
    TaskResultDoesNotExist,
    task_backends,
)
from ._errors import category_of, is_certainly_unsent
from ._run import Work, in_the_call

__all__ = ["DjangoTasksDispatcher", "DjangoTasksOptions"]

QUEUE = "default"
"""The queue that Django's tasks have where none is named."""
GATE = ForkGate()
"""Keeps forks out while locks of Django's, of asgiref's and of a client may be held."""


class DjangoTasksOptions(BackendOptions):
    """Options of `django_tasks`."""

    tasks: str = Field(default="default", min_length=1)
    """The alias in `settings.TASKS` of the backend that gets the work."""
    durable: bool = False
    """What you know of that backend: accepted work survives the death of its workers, too."""


class DjangoTasksDispatcher(BaseDispatcher):
    """Hands work over to a backend of `django.tasks`, whose own worker runs it.

    Backends are synchronous and bound nothing, so that each hand-over runs on a helper thread, on
    database connections of its own: it is no part of a transaction of the caller's.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: `settings.TASKS` has no such alias, or its backend cannot be used.
    """

    name = "django_tasks"
    contract = 1
    library = LIBRARY
    capabilities = Capabilities(
        delay=True,
        priority=True,
        retries=True,
        queues=True,
        confirmed=True,
        durable=True,
        dead_letters=True,
    )
    Options = DjangoTasksOptions
    options: DjangoTasksOptions

    def __init__(
        self,
        options: DjangoTasksOptions | None = None,
        *,
        alias: str | None = None,
        **settings: object,
    ) -> None:
        self._of_thread = threading.local()
        super().__init__(options, alias=alias, **settings)
        narrowed = {
            "delay": self.backend.supports_defer,
            "priority": self.backend.supports_priority,
            "retries": not self.runs_here,
            "queues": not self.runs_here,
            "durable": self.options.durable,
            "runs_here": self.runs_here,
        }
        self.capabilities = self.capabilities.model_copy(update=narrowed)

    @classmethod
    def is_available(cls) -> bool:
        """Tell whether there is an API and, in Django 6, which always has it, a use of it."""
        return super().is_available() and (LIBRARY != "django.tasks" or _has_tasks())

    @cached_property
    def runs_here(self) -> bool:
        """Tell whether the backend runs work in the call."""
        return isinstance(self.backend, ImmediateBackend)

    @property
    def run_by(self) -> str | None:
        """The worker that the backend brings, as its own documents name it."""
        if self.runs_here:
            return None
        backend = type(self.backend)
        return f"the worker of {backend.__module__}.{backend.__qualname__}, as its documents say"

    @property
    def guarded(self) -> bool:  # type: ignore[override] # read once the options are there
        """Bound each hand-over from outside, unless the work itself is run in it."""
        return not self.runs_here

    @property
    def backend(self) -> BaseTaskBackend:
        """The backend, an object for each thread, as Django has it."""
        found: BaseTaskBackend | None = getattr(self._of_thread, "backend", None)
        if found is None:
            found = self._of_thread.backend = _loaded(self.options.tasks)
        return found

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        can = self.capabilities
        # What is waived is still in the request.
        priority = request.priority if can.priority else None
        due = request.due.timestamp() if request.due and can.delay else 0.0
        queue = self._known_queue(self.queue_of(request) or QUEUE)
        work = Work(body, request.task, queue, priority or 0, DeliveryCount(due=due))
        with in_the_call(self) as outcomes:
            task_id = self.hand_over(work)
        return sent(outcomes[0], task_id) if outcomes else Sent(task_id)

    def hand_over(self, work: Work) -> str:
        """Enqueue work, and return the id of its result; for both sides.

        Where the backend cannot defer, work that is not due comes at once, and its run waits.
        """
        # Late: the module of the task needs settings.
        from .task import django_task

        run_after = _instant(work.counts.due) if self.capabilities.delay else None
        with GATE.entered():
            task = django_task(self.backend, work.queue, work.priority, run_after)
        carried = {
            "task": work.task,
            "body": work.body.decode(),
            "alias": self.alias,
            "tasks": self.options.tasks,
            "counts": work.counts.headers,
        }
        with _on_helper_thread():
            return str(self.backend.enqueue(task, [], carried).id)

    def _known_queue(self, queue: str) -> str:
        known = self.backend.queues
        if known and queue not in known:
            raise RejectedError(ErrorCategory.NOT_FOUND, self._no_queue(queue))
        return queue

    def _no_queue(self, queue: str) -> str:
        known = ", ".join(sorted(self.backend.queues))
        return f"no queue {queue!r} in {_place(self.options.tasks)}['QUEUES'], which has {known}"

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    def _probe(self, *, timeout: float) -> None:
        """Ask for a result that there cannot be, where the backend has results."""
        if self.backend.supports_get_result:
            with _on_helper_thread(), suppress(TaskResultDoesNotExist):
                self.backend.get_result(str(uuid4()))

    def _check(self) -> None:
        wrong = [each for each in self.backend.check() if each.is_serious()]
        if wrong:
            told = "; ".join(str(each.msg) for each in wrong)
            raise ConfigurationError(f"{_place(self.options.tasks)}: {told}")
        known, named = self.backend.queues, self.options.queue or QUEUE
        if known and named not in known:
            raise ConfigurationError(f"{self._no_queue(named)}: set `queue`, or add it there")


def _loaded(alias: str) -> BaseTaskBackend:
    """Return the backend under an alias.

    Raises:
        ConfigurationError: There is none, or it hands its work to a dispatcher itself.
    """
    try:
        known = list(task_backends)
        if alias not in known:
            raise ConfigurationError(
                f"settings.TASKS has no {alias!r}, it has {', '.join(map(repr, known))}: "
                "name one of them in the option `tasks`"
            )
        found = task_backends.create_connection(alias)
    except (ImproperlyConfigured, ImportError) as exc:
        message = f"backend 'django_tasks': {_place(alias)} cannot be used: {exc}"
        raise ConfigurationError(message) from exc
    if getattr(found, "hands_to_dispatcher", False):
        raise ConfigurationError(
            f"{_place(alias)} hands its work to a dispatcher, which could be this one: name the "
            "backend of that dispatcher here, or another alias in `tasks`"
        )
    return found


def _place(alias: str) -> str:
    return f"settings.TASKS[{alias!r}]"


def _has_tasks() -> bool:
    """Return True where the project's own settings name backends of `django.tasks`."""
    try:
        return bool(settings.is_overridden("TASKS"))
    except ImproperlyConfigured:  # no settings
        return False


def _instant(seconds: float) -> datetime | None:
    """Return seconds since the epoch as Django has them: naive in its zone without `USE_TZ`."""
    if not seconds:
        return None
    due = datetime.fromtimestamp(seconds, UTC)
    return due if settings.USE_TZ else timezone.make_naive(due)


@contextmanager
def _on_helper_thread() -> Generator[None]:
    """Close database connections that are broken or old, as requests do, and keep forks out.

    On any other thread nothing is done: its owner may be in the midst of a transaction, or the
    work itself may run, and fork.
    """
    if not register_closer(connections.close_all):
        yield
        return
    with GATE.entered():
        close_old_connections()
        try:
            yield
        finally:
            close_old_connections()
