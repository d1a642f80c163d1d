"""`DispatcherBackend`: checks, enqueuing, and reading results of `django.tasks`."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from django.apps import apps
from django.core import checks
from django.db import transaction
from django.utils import timezone
from pydantic import ValidationError

from dispatchers import (
    Capabilities,
    ConfigurationError,
    Dispatcher,
    DispatchError,
    DispatchRequest,
    DispatchResponse,
    get_dispatcher,
)

from . import _settings, _task_memory, _task_results
from ._task_api import (
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
    task_finished,
)
from ._task_options import Options, wrong
from ._task_results import FAILED, READY, Seen, WorkLostError, error_of
from ._task_run import QUEUE, carried, found, run
from ._task_work import Work, enqueuing, row_of, stored, worker_id
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


class DispatcherBackend(BaseTaskBackend):
    """Hands the tasks of `django.tasks` to a dispatcher, and keeps their results on request.

    Raises:
        InvalidTaskBackend: An option is unknown or does not fit.
    """

    supports_async_task = True
    hands_to_dispatcher = True
    """Work goes to a dispatcher: one of backend `django_tasks` refuses to hand it on to here."""

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        try:
            self.chosen = Options.model_validate(self.options)
        except ValidationError as exc:
            place = f"settings.TASKS[{alias!r}]['OPTIONS']"
            raise InvalidTaskBackend(f"{place}: {wrong(exc)}") from None
        self._enqueued = count()

    @property
    def supports_get_result(self) -> bool:  # type: ignore[override] # an option's
        """Tell whether results are kept."""
        return self.chosen.results

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

        Work that runs in the call is kept as RUNNING at once, and as it ended.

        Raises:
            InvalidTask: The task does not fit this backend, or no worker could find it.

            TypeError: JSON cannot carry an argument, or would change it.

            ConfigurationError: The dispatcher cannot be made.

            DispatchError: It could not be handed over, with the option `raise_errors`.
        """
        self.validate_task(task)
        _refuse_unfindable(task)
        given = carried([list(args), dict(kwargs)])
        request = self._request(task, *given)
        dispatcher = get_dispatcher(self.chosen.dispatcher)  # raises before a row is written
        work = Work(self, self.ready(request, task, *given))
        waits = self.chosen.on_commit and database_of(dispatcher) != _task_results.database()
        if self.chosen.results:
            self._keep(work, request, runs=dispatcher.capabilities.runs_here and not waits)
        hand_over = partial(self._hand_over, request, work)
        if waits:
            # Robust, as an error in here must not stop the application's other callbacks.
            transaction.on_commit(hand_over, using=_task_results.database(), robust=True)
        else:
            hand_over()
        return cast("TaskResult[P, R]", work.result)

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """Return a result as the database has it now.

        Raises:
            TaskResultDoesNotExist: The id is unknown here, or could be none.

            NotImplementedError: None are kept.
        """
        if not self.chosen.results:
            return super().get_result(result_id)
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
            uses = "reads settings.DISPATCHERS and brings the worker"
            uses += ", and keeps results" if self.chosen.results else ""
            words = f"{place}: add 'dispatchers_django' to INSTALLED_APPS, which {uses}"
            return [checks.Error(words, id="dispatchers.E003")]
        try:
            get_dispatcher(self.chosen.dispatcher)
        except ConfigurationError as exc:
            return [checks.Error(f"{place}: {exc}", id="dispatchers.E004")]
        return []

    def ready(
        self, request: DispatchRequest, task: Task[..., Any], args: Any, kwargs: Any
    ) -> TaskResult[..., Any]:
        """Return the result of work that no run has begun."""
        return TaskResult(
            task=task,
            id=request.id,
            status=TaskResultStatus(READY),
            enqueued_at=stored(request.created_at),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=args,
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )

    def result_of(self, row: Row) -> TaskResult[..., Any]:
        """Return a row as the result of a task."""
        state = self.state_of(row)
        value = state.pop("_return_value")
        result: TaskResult[..., Any] = TaskResult(
            task=self._task_of(row),
            id=row.id,
            args=json.loads(row.args),
            kwargs=json.loads(row.kwargs),
            backend=self.alias,
            **state,
        )
        _task_memory.change(result, _return_value=value)
        return result

    def state_of(self, row: Row) -> dict[str, Any]:
        """Return what a row says of its work, by the names of a result."""
        seen = Seen.of(row, self.chosen.lost_after)
        return {
            "status": seen.status,
            "enqueued_at": row.enqueued_at,
            "started_at": row.started_at,
            "finished_at": seen.finished_at,
            "last_attempted_at": row.last_attempted_at,
            "errors": seen.errors,
            "worker_ids": json.loads(row.worker_ids),
            "_return_value": json.loads(row.return_value),
        }

    @property
    def _capabilities(self) -> Capabilities:
        # Read when asked for, as tasks are declared while applications load.
        if not apps.ready:
            _settings.install()
        try:
            return get_dispatcher(self.chosen.dispatcher).capabilities
        except ConfigurationError:
            # Its cause is for the checks and `enqueue` to tell. A task that were refused here, for
            # its priority, would keep both from being reached.
            return Capabilities(delay=True, priority=True)

    def _request(
        self, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> DispatchRequest:
        given = (self.alias, task.module_path, task.queue_name, task.priority, args, kwargs)
        # The name that Django gives where none is given: the dispatcher has a default, too.
        queue = None if task.queue_name == QUEUE else task.queue_name
        due = task.run_after
        if not (queue or task.priority or due):
            return run.request(*given)
        eta = timezone.make_aware(due) if due and timezone.is_naive(due) else due
        try:
            asked = run.options(queue=queue, priority=task.priority or None, eta=eta)
            return asked.request(*given)
        except ValidationError as exc:
            raise InvalidTask(f"task {task.module_path!r}: {wrong(exc)}") from None

    def _keep(self, work: Work, request: DispatchRequest, *, runs: bool) -> None:
        """Write the row of a result; work that `runs` in this call is held for it at once."""
        row = _task_results.new(row_of(request))
        if runs:
            work.held = _task_results.hold(row, worker_id(), self.chosen.lease)
        else:
            _task_results.add(row)
        if next(self._enqueued) % PURGE_EVERY == 0:
            _task_results.purge(self.chosen.keep)

    def _hand_over(self, request: DispatchRequest, work: Work) -> None:
        dispatcher = get_dispatcher(self.chosen.dispatcher)
        if dispatcher.capabilities.runs_here:
            self._run_here(dispatcher, request, work)
            return
        response = dispatcher.dispatch(request)
        if response.is_sync:
            if self.chosen.results:
                work.result.refresh()
        elif not response.ok:
            self._failed(response, work)
        else:
            task_enqueued.send_robust(type(self), task_result=work.result)

    def _run_here(self, dispatcher: Dispatcher, request: DispatchRequest, work: Work) -> None:
        # First, as afterwards it would be told that a finished task was enqueued.
        task_enqueued.send_robust(type(self), task_result=work.result)
        token = enqueuing.set(work)
        try:
            response = dispatcher.dispatch(request)
        finally:
            enqueuing.reset(token)
        if not (response.is_sync or response.ok):
            self._failed(response, work)
        elif not response.ok and work.result.status == READY:
            # Attempts are left that the dispatcher does not make: the call was the last.
            self._tell(work, ended=work.end(FAILED))

    def _failed(self, response: DispatchResponse, work: Work) -> None:
        """Note that the work was not handed over, unless a run of it has begun after all."""
        try:
            response.raise_for_error()
        except DispatchError as exc:
            # What refused it here, as late or unreadable, may have ended it already.
            if not work.result.is_finished:
                # Without the client's own exception, whose words may hold a password.
                self._tell(work, ended=work.end(FAILED, error=error_of(exc, chain=False)))
            if self.chosen.raise_errors:
                raise

    def _tell(self, work: Work, *, ended: bool) -> None:
        if ended:
            task_finished.send_robust(type(self), task_result=work.result)

    def _task_of(self, row: Row) -> Task[..., Any]:
        return found(row.task).using(
            priority=row.priority,
            queue_name=row.queue,
            run_after=row.run_after,
            backend=self.alias,
        )


def _refuse_unfindable(task: Task[..., Any]) -> None:
    func = task.func
    known = getattr(sys.modules.get(func.__module__), func.__qualname__, None)
    if not isinstance(known, Task) or known.func is not func:
        path = task.module_path
        raise InvalidTask(
            f"no worker could find task {path!r}: its module must have it under that name"
        )
