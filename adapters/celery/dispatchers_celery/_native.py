"""Celery's own tasks: dispatched to by name as they are, or converted one by one."""

from __future__ import annotations

from typing import Any

from celery import Celery

from dispatchers import (
    ConfigurationError,
    DispatchFailure,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    Task,
    get_dispatcher,
)

from ._message import NATIVE

__all__ = ["NativeTask", "adopt", "native"]


def native(task: Any, *, dispatcher: str = "default", **options: Any) -> NativeTask:
    """A task that somebody already has in Celery, to be dispatched to without rewriting it.

    Its message is the one that `delay` writes; what it does with it, retries included, is Celery's.

    Args:
        task: The Celery task, registered here or not, or its name.

        dispatcher: The alias of a dispatcher of `celery`.

        options: `queue`, `priority`, `delay`, `eta`, `expires`, `time_limit`, `deadline` or
            `headers`, as a request takes them.
    """
    return NativeTask(task if isinstance(task, str) else str(task.name), dispatcher, options)


class NativeTask:
    """Dispatches one of Celery's own tasks; made by `native`."""

    def __init__(self, name: str, dispatcher: str, options: dict[str, Any]) -> None:
        self.name = name
        """Its name in Celery."""
        self._dispatcher = dispatcher
        self._options = options

    def request(self, *args: Any, **kwargs: Any) -> DispatchRequest:
        """The request that `dispatch` would hand over.

        Raises:
            ValidationError: An option does not fit, or JSON would change an argument.
        """
        headers = {**self._options.get("headers", {}), NATIVE: "1"}
        payload = {"args": list(args), "kwargs": kwargs}
        values = {**self._options, "task": self.name, "headers": headers, "payload": payload}
        return DispatchRequest.model_validate(values)

    def dispatch(self, *args: Any, **kwargs: Any) -> DispatchResponse:
        """Hand it over, and say what became of it. Never raises an `Exception`."""
        try:
            request = self.request(*args, **kwargs)
            found = get_dispatcher(self._dispatcher)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._refused(exc)
        return found.dispatch(request)

    async def adispatch(self, *args: Any, **kwargs: Any) -> DispatchResponse:
        """The same without blocking the event loop."""
        try:
            request = self.request(*args, **kwargs)
            found = get_dispatcher(self._dispatcher)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._refused(exc)
        return await found.adispatch(request)

    def _refused(self, exc: Exception) -> DispatchResponse:
        wrong = isinstance(exc, ConfigurationError)  # which is a ValueError as well
        invalid = isinstance(exc, ValueError | TypeError) and not wrong
        return DispatchResponse(
            request_id="",
            dispatcher=self._dispatcher,
            backend="celery",
            status=DispatchStatus.REJECTED,
            error=DispatchFailure(
                category=ErrorCategory.INVALID if invalid else ErrorCategory.CONFIGURATION,
                retryable=False,
                exception_type=type(exc).__name__,
                message=f"task {self.name!r}: {exc}",
            ),
        )


def adopt(task: Task[..., Any], app: Celery) -> Any:
    """The Celery task of a converted task: for `.delay()`, canvas and beat, as before.

    A task that was Celery's and is now ours keeps its name. Its workers take messages of both
    kinds, those of its former life with plain arguments as well, so that producers and workers can
    be changed one at a time, and changed back. Plain messages are settled and retried as Celery
    does.

    Args:
        task: The task, declared with `@task(name="the name it had")`.

        app: The application, after `register(app)`.

    Raises:
        LookupError: `register(app)` was not called.
    """
    found = app.tasks.get(task.name)
    if found is None:
        raise LookupError(f"task {task.name!r} is not in the application: call register(app) first")
    return found
