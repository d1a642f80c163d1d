"""`DispatcherBackend`: checks, enqueuing, and reading results of `django.tasks`."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from django.apps import apps
from django.core import checks
from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatchers import (
    Capabilities,
    ConfigurationError,
    DispatchError,
    DispatchRequest,
    DispatchResponse,
    get_dispatcher,
)

from . import _settings, _task_results
from ._task_api import (
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    task_enqueued,
    task_finished,
)
from ._task_results import FAILED, Seen, WorkLostError, error_of
from ._task_run import QUEUE, carried, found, row_of, run
from .outbox import database_of

if TYPE_CHECKING:
    from .models import TaskResult as Row

__all__ = ["DispatcherBackend", "WorkLostError"]

P = ParamSpec("P")
R = TypeVar("R")

PURGE_EVERY = 100
"""Enqueuings of one process between two purges."""
ID = re.compile(r"[0-9a-f]{32}")
"""Ids as requests have them: for others no database is asked, which might raise."""


class Options(BaseModel):
    """The `OPTIONS` of a backend in `settings.TASKS`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dispatcher: str = "default"
    """The alias in `settings.DISPATCHERS` that gets the work."""
    on_commit: bool = False
    """Hand over after the commit of the transaction that `enqueue` is called in."""
    raise_errors: bool = False
    """Raise `DispatchError` where the work could not be handed over, besides the FAILED result."""
    lease: float = Field(default=60.0, gt=0)
    """Seconds without renewal after which a running worker counts as killed."""
    lost_after: float = Field(default=3600.0, ge=0)
    """Seconds after the lease until work that was not delivered again is read as FAILED."""
    keep: float = Field(default=14 * 86400.0, gt=0)
    """Seconds that a result is kept after its end."""


class DispatcherBackend(BaseTaskBackend):
    """Hands the tasks of `django.tasks` to a dispatcher, and keeps their results in the database.

    Raises:
        InvalidTaskBackend: An option is unknown or does not fit.
    """

    supports_async_task = True
    supports_get_result = True
    hands_to_dispatcher = True
    """Work goes to a dispatcher: one of backend `django_tasks` refuses to hand it on to here."""

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        try:
            self.chosen = Options.model_validate(self.options)
        except ValidationError as exc:
            wrong = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in exc.errors())
            raise InvalidTaskBackend(f"settings.TASKS[{alias!r}]['OPTIONS']: {wrong}") from None
        self._enqueued = count()

    @property
    def supports_defer(self) -> bool:  # type: ignore[override] # read late, see `_capabilities`
        """Tell whether the dispatcher holds work back; asks no server."""
        return self._capabilities.delay

    @property
    def supports_priority(self) -> bool:  # type: ignore[override] # read late, see `_capabilities`
        """Tell whether the dispatcher has priorities; asks no server."""
        return self._capabilities.priority

    def enqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """Keep the result as READY, and hand the work over.

        Raises:
            InvalidTask: The task does not fit this backend, or no worker could find it.

            TypeError: JSON cannot carry an argument, or would change it.

            DispatchError: It could not be handed over, with the option `raise_errors`.
        """
        self.validate_task(task)
        _refuse_unfindable(task)
        request = self._request(task, carried(list(args)), carried(dict(kwargs)))
        get_dispatcher(self.chosen.dispatcher)  # raises before a row is written
        row = _task_results.add(row_of(request))
        if next(self._enqueued) % PURGE_EVERY == 0:
            _task_results.purge(self.chosen.keep)
        result = cast("TaskResult[P, R]", self.result_of(row, task))
        hand_over = partial(self._hand_over, request, result)
        if self.chosen.on_commit and not self._is_beside():
            # Robust, as an error in here must not stop the application's other callbacks.
            transaction.on_commit(hand_over, using=_task_results.database(), robust=True)
        else:
            hand_over()
        return result

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """Return a result as the database has it now.

        Raises:
            TaskResultDoesNotExist: The id is unknown here, or could be none.
        """
        given: object = result_id
        known = isinstance(given, str) and ID.fullmatch(given)
        row = _task_results.find(str(given), self.alias) if known else None
        if row is None:
            raise TaskResultDoesNotExist(str(given))
        return self.result_of(row)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Return what keeps this backend from working: `dispatchers.E003`, `dispatchers.E004`."""
        del kwargs
        place = f"settings.TASKS[{self.alias!r}]"
        if not apps.is_installed("dispatchers_django"):
            words = f"{place}: add 'dispatchers_django' to INSTALLED_APPS, which keeps the results"
            return [checks.Error(words, id="dispatchers.E003")]
        try:
            get_dispatcher(self.chosen.dispatcher)
        except ConfigurationError as exc:
            return [checks.Error(f"{place}: {exc}", id="dispatchers.E004")]
        return []

    def result_of(self, row: Row, task: Task[..., Any] | None = None) -> TaskResult[..., Any]:
        """Return a row as the result of a task."""
        seen = Seen.of(row, self.chosen.lost_after)
        result: TaskResult[..., Any] = TaskResult(
            task=task or self._task_of(row),
            id=row.id,
            status=seen.status,
            enqueued_at=row.enqueued_at,
            started_at=row.started_at,
            finished_at=seen.finished_at,
            last_attempted_at=row.last_attempted_at,
            args=json.loads(row.args),
            kwargs=json.loads(row.kwargs),
            backend=self.alias,
            errors=seen.errors,
            worker_ids=json.loads(row.worker_ids),
        )
        object.__setattr__(result, "_return_value", json.loads(row.return_value))
        return result

    @property
    def _capabilities(self) -> Capabilities:
        # Read when asked for: tasks are declared while applications load, and a dispatcher that is
        # configured wrongly is told by the checks.
        if not apps.ready:
            _settings.install()
        try:
            return get_dispatcher(self.chosen.dispatcher).capabilities
        except ConfigurationError:
            return Capabilities()

    def _request(
        self, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> DispatchRequest:
        due = task.run_after
        work = run.options(
            # The name that Django gives where none is given: the dispatcher has a default, too.
            queue=None if task.queue_name == QUEUE else task.queue_name,
            priority=task.priority or None,
            eta=timezone.make_aware(due) if due and timezone.is_naive(due) else due,
        )
        return work.request(
            self.alias, task.module_path, task.queue_name, task.priority, args, kwargs
        )

    def _is_beside(self) -> bool:
        """Tell whether the work is a row in the transaction of the result, and needs no wait."""
        dispatcher = get_dispatcher(self.chosen.dispatcher)
        return database_of(dispatcher) == _task_results.database()

    def _hand_over(self, request: DispatchRequest, result: TaskResult[..., Any]) -> None:
        dispatcher = get_dispatcher(self.chosen.dispatcher)
        runs_here = dispatcher.capabilities.runs_here
        if runs_here:  # afterwards it would be told that a finished task was enqueued
            task_enqueued.send_robust(type(self), task_result=result)
        response = dispatcher.dispatch(request)
        if response.is_sync:
            result.refresh()
        elif not response.ok:
            self._failed(response, result)
        elif not runs_here:
            task_enqueued.send_robust(type(self), task_result=result)

    def _failed(self, response: DispatchResponse, result: TaskResult[..., Any]) -> None:
        """Note that the work was not handed over, unless a run of it has begun after all."""
        try:
            response.raise_for_error()
        except DispatchError as exc:
            # Without the client's own exception, whose words may hold a password.
            error = error_of(exc, chain=False)
            ended = _task_results.end(result.id, FAILED, owner="", error=error)
            result.refresh()
            if ended:
                task_finished.send_robust(type(self), task_result=result)
            if self.chosen.raise_errors:
                raise

    def _task_of(self, row: Row) -> Task[..., Any]:
        return found(row.task).using(
            priority=row.priority,
            queue_name=row.queue,
            run_after=row.run_after,
            backend=self.alias,
        )


def _refuse_unfindable(task: Task[..., Any]) -> None:
    with suppress(ImportError, InvalidTask):
        if found(task.module_path).func is task.func:
            return
    raise InvalidTask(
        f"no worker could find task {task.module_path!r}: its module must have it under that name"
    )
