"""`dispatch`, `adispatch`, `request`, `options` and `batch`: what a task offers its callers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self

from pydantic import JsonValue, ValidationError

from ._contract import BaseDispatcher, Dispatcher
from ._envelope import Head
from ._errors import ConfigurationError, ErrorCategory
from ._errors import RejectedError as Rejected
from ._foreign import alias_of, is_dispatcher, safe
from ._instances import get_dispatcher, resolve, settings_of_task, state
from ._layers import DEFAULT
from ._options import options_error
from ._payload_errors import DeclarationError, PayloadError
from ._refusal import refused
from ._request import Backoff, DispatchRequest
from ._response import DispatchResponse

if TYPE_CHECKING:
    from ._task import AnyTask
    from ._task_batch import TaskBatch

__all__ = ["Dispatching", "TaskOptions"]

P = ParamSpec("P")


class Dispatching(Generic[P]):
    """Dispatches one task, with options or without."""

    def __init__(self, task: AnyTask, options: dict[str, Any]) -> None:
        self._task = task
        self._options = options
        self._routed: tuple[int, Dispatcher, Head] | None = None

    def dispatch(self, /, *args: P.args, **kwargs: P.kwargs) -> DispatchResponse:
        """Hand the work over, and say what became of it. Never raises an `Exception`."""
        started = monotonic()
        try:
            dispatcher, request = self._prepared(args, kwargs)
        except Exception as exc:  # noqa: BLE001 - C1: there is no dispatcher yet that could answer
            return self._refused(exc, started)
        return dispatcher.dispatch(request)

    async def adispatch(self, /, *args: P.args, **kwargs: P.kwargs) -> DispatchResponse:
        """The same without blocking the event loop."""
        started = monotonic()
        try:
            dispatcher, request = self._prepared(args, kwargs)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._refused(exc, started)
        return await dispatcher.adispatch(request)

    def request(self, /, *args: P.args, **kwargs: P.kwargs) -> DispatchRequest:
        """The request that `dispatch` would hand over: a constructor, so it raises.

        Raises:
            PayloadError: The arguments do not fit, or JSON could not carry them exactly.

            ValidationError: An option does not fit.

            DeclarationError: The task's signature cannot travel.
        """
        return self._request(self._head(), args, kwargs)

    def options(  # noqa: D417 - the table in the docs and DispatchRequest have them
        self,
        *,
        dispatcher: str | Dispatcher | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | None = None,
        eta: datetime | None = None,
        expires: timedelta | datetime | None = None,
        deadline: float | None = None,
        time_limit: float | timedelta | None = None,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        idempotency_key: str | None = None,
        deduplicate: bool | None = None,
        headers: Mapping[str, str] | None = None,
        context: Mapping[str, JsonValue] | None = None,
    ) -> TaskOptions[P]:
        """The same task with options for the next dispatches; they beat the task's own.

        A value that does not fit is the answer of `dispatch`, and raised by `request`.

        Args:
            dispatcher: An alias, or a dispatcher object.
        """
        given = locals()
        del given["self"]
        chosen = {name: value for name, value in given.items() if value is not None}
        return TaskOptions(self._task, {**self._options, **chosen})

    def batch(self) -> TaskBatch[P]:
        """An empty batch: `add` the work, then `dispatch` it in one round trip where possible."""
        from ._task_batch import TaskBatch

        return TaskBatch(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a task is one, and options are chosen once."""
        return self

    def __copy__(self) -> Self:
        return self

    # How it is done.

    def _prepared(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Dispatcher, DispatchRequest]:
        """The dispatcher and the request for it."""
        routed = self._routed
        if routed is None or routed[0] != state.generation:
            routed = self._route()
        codec = self._task.codec
        payload = codec.encode(codec.named(args, kwargs) if args else kwargs)
        return routed[1], routed[2].request(payload)

    def _route(self) -> tuple[int, Dispatcher, Head]:
        """Dispatcher and head, good until the configuration changes."""
        generation = state.generation
        self._routed = routed = (generation, safe(self._dispatcher()), self._head())
        return routed

    def _dispatcher(self) -> Dispatcher:
        """A task's own alias falls back to the default; one that a caller names must exist."""
        chosen = self._options.get("dispatcher")
        if chosen is None:
            return resolve(self._values()["dispatcher"])
        return get_dispatcher(chosen) if isinstance(chosen, str) else _a_dispatcher(chosen)

    def _values(self) -> dict[str, Any]:
        """Options beat the host's word on the task, that beats the task's own."""
        policy = self._task.policy
        own = {"dispatcher": policy.dispatcher, **policy.for_requests()}
        host = {k: v for k, v in settings_of_task(self._task.name).items() if k in CARRIED}
        return {**own, **host, **self._options}

    def _head(self) -> Head:
        values = {k: v for k, v in self._values().items() if k != "dispatcher"}
        task = self._task
        if "delay" in self._options or "eta" in self._options:
            values = {**dict.fromkeys(("delay", "eta")), **values}
        values |= {"task": task.name, "fingerprint": task.codec.fingerprint}
        return Head(DispatchRequest.model_validate(values))

    def _request(
        self, head: Head, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DispatchRequest:
        codec = self._task.codec
        return head.request(codec.encode(codec.named(args, kwargs) if args else kwargs))

    def _refused(self, exc: Exception, started: float) -> DispatchResponse:
        chosen = self._options.get("dispatcher")
        if chosen is None:
            chosen = self._task.policy.dispatcher or DEFAULT
        known = self._routed[1] if self._routed else None
        backend = known.name if isinstance(known, BaseDispatcher) else ""
        return refused(alias_of(chosen), backend, self._explained(exc), started)

    def _explained(self, exc: Exception) -> Exception:
        """The same error with the task's name in front."""
        name = self._task.name
        if isinstance(exc, ValidationError):
            text = str(options_error(exc, DispatchRequest, f"task {name!r}"))
            return _rejected(ErrorCategory.INVALID, text, exc)
        if isinstance(exc, PayloadError | DeclarationError):
            return _rejected(ErrorCategory.INVALID, f"task {name!r}: {exc}", exc)
        if isinstance(exc, ConfigurationError):
            return exc
        return exc


CARRIED = frozenset(
    {
        "dispatcher",
        "queue",
        "priority",
        "expires",
        "time_limit",
        "max_attempts",
        "backoff",
    }
)
"""What a host may say about a task by name."""


def _a_dispatcher(given: Any) -> Dispatcher:
    if not is_dispatcher(given):
        kind = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
        raise Rejected(
            ErrorCategory.INVALID, f"dispatcher takes an alias or a dispatcher, not {kind}"
        )
    return given


def _rejected(category: ErrorCategory, message: str, cause: Exception) -> Rejected:
    error = Rejected(category, message)
    error.__cause__ = cause
    return error


class TaskOptions(Dispatching[P]):
    """A task with options: what `task.options(...)` gives."""

    def __reduce__(self) -> tuple[object, ...]:
        return _with_options, (self._task, self._options)

    def __repr__(self) -> str:
        return f"<task {self._task.name!r} with {', '.join(sorted(self._options))}>"


def _with_options(task: AnyTask, options: dict[str, Any]) -> TaskOptions[...]:
    return TaskOptions(task, options)
