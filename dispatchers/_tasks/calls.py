"""`dispatch`, `step`, `request`, `options` and `batch`: what a task offers its callers."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, Self, TypeVar, overload

from pydantic import ValidationError
from typing_extensions import Unpack

from dispatchers._config.api import get_dispatcher, resolve, settings_of_task, state
from dispatchers._config.layers import DEFAULT
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.duck_typed import alias_of, is_dispatcher, safe, unknown
from dispatchers._dispatch.last_resort import ALL_REJECTED, ALL_UNKNOWN, REJECTED, UNKNOWN
from dispatchers._dispatch.protocol import Dispatcher, is_instance
from dispatchers._dispatch.reporting import told, told_all, unrouted
from dispatchers._errors import ErrorCategory, NotDurableError
from dispatchers._errors import RejectedError as Rejected
from dispatchers._models.envelope import Head, head
from dispatchers._models.json_object import JsonObject
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchResponses
from dispatchers._models.validation import options_error
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._tasks.definition import TaskDefinition
from dispatchers._tasks.options import CARRIED, RequestOptions, chosen_options
from dispatchers._tasks.recorder import Recorder, recording

if TYPE_CHECKING:
    from asyncio import Future

P = ParamSpec("P")


R = TypeVar("R", covariant=True)  # noqa: PLC0105 - users read it


T = TypeVar("T")


class TaskBatch(Generic[P]):
    """Work to dispatch together: `add` and `dispatch` raise no `Exception`.

    What does not fit is kept as the answer that it will get, in its place. A dispatch empties the
    batch, whatever became of the work: what failed is in `responses.failed`, each with its request.
    """

    def __init__(self, dispatching: Dispatching[P, Any]) -> None:
        self._dispatching = dispatching
        # Each item is taken in one step, so that none is lost or doubled between threads.
        self._items: deque[DispatchRequest | DispatchResponse] = deque()

    def add(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add one call of the task."""
        dispatching, started = self._dispatching, monotonic()
        try:
            item: DispatchRequest | DispatchResponse = dispatching._prepared(args, kwargs)[1]
        except Exception as exc:  # noqa: BLE001 - C1: the answer stands in its place
            try:
                item = dispatching._unrouted(exc, started)
            except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
                item = REJECTED
        self._items.append(item)

    def __repr__(self) -> str:
        return f"<batch of {len(self._items)} of task {self._dispatching._task.name!r}>"

    def __len__(self) -> int:
        return len(self._items)

    def dispatch(self) -> DispatchResponses:
        """Hand over all that was added, and empty the batch; one response each, in order."""
        exhausted = ALL_REJECTED
        try:
            items, requests = self._emptied()
            if (recorder := recording.get()) is not None:
                return _merged(items, self._held(recorder, requests))
            dispatcher, refused = self._routed(requests)
            if dispatcher is None:
                return _merged(items, refused)
            exhausted = ALL_UNKNOWN
            return _merged(items, dispatcher.dispatch_many(requests))
        except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
            return exhausted

    async def adispatch(self) -> DispatchResponses:
        """Hand over all that was added without blocking the event loop."""
        exhausted = ALL_REJECTED
        try:
            items, requests = self._emptied()
            if (recorder := recording.get()) is not None:
                return _merged(items, self._held(recorder, requests))
            dispatcher, refused = self._routed(requests)
            if dispatcher is None:
                return _merged(items, refused)
            exhausted = ALL_UNKNOWN
            return _merged(items, await dispatcher.adispatch_many(requests))
        except Exception:  # noqa: BLE001 - C1
            return exhausted

    def _held(self, recorder: Recorder, requests: list[DispatchRequest]) -> list[DispatchResponse]:
        """Return the answers of a workflow, which holds them until its turn is committed."""
        task, alias = self._dispatching._task, self._dispatching._alias()
        held = []
        for request in requests:
            payload: JsonObject = request.payload  # type: ignore[assignment] # ours
            held.append(recorder.send(task, payload.json, _Known(head(request), alias)))
        return held

    def _routed(
        self, requests: list[DispatchRequest]
    ) -> tuple[Dispatcher | None, list[DispatchResponse]]:
        """Return the dispatcher; without one, the answers to all requests."""
        if not requests:
            return None, []
        try:
            return self._dispatching._route()[1], []
        except Exception as exc:  # noqa: BLE001 - C1: the configuration changed since `add`
            return None, self._all_refused(requests, exc)

    def _emptied(self) -> tuple[list[DispatchRequest | DispatchResponse], list[DispatchRequest]]:
        items: list[DispatchRequest | DispatchResponse] = []
        with suppress(IndexError):  # another thread dispatches it as well
            items.extend(self._items.popleft() for _ in range(len(self._items)))
        return items, [item for item in items if isinstance(item, DispatchRequest)]

    def _all_refused(
        self, requests: list[DispatchRequest], exc: Exception
    ) -> list[DispatchResponse]:
        started = monotonic()
        refused = [self._dispatching._unrouted(exc, started) for _ in requests]
        told_all(refused)
        return refused


def _merged(
    items: list[DispatchRequest | DispatchResponse], answers: Iterable[DispatchResponse]
) -> DispatchResponses:
    """Return the responses in the order of the items; tell of those that `add` refused."""
    rest = iter(answers)
    told_all([item for item in items if isinstance(item, DispatchResponse)])
    return DispatchResponses(
        item if isinstance(item, DispatchResponse) else next(rest, UNKNOWN) for item in items
    )


class Dispatching(Generic[P, R]):
    """Dispatches one task, with options or without."""

    def __init__(self, task: TaskDefinition, options: dict[str, Any]) -> None:
        self._task = task
        self._options = options
        self._routed: tuple[int, Dispatcher, Head] | None = None
        self._headed: tuple[int, Head] | None = None

    def dispatch(self, /, *args: P.args, **kwargs: P.kwargs) -> DispatchResponse:
        """Hand the work over, and say what became of it. Never raises an `Exception`."""
        started, request = 0.0, None
        try:
            started = monotonic()
            if (recorder := recording.get()) is not None:
                return recorder.send(self._task, self._payload(args, kwargs), self)
            dispatcher, request = self._prepared(args, kwargs)
            return dispatcher.dispatch(request)
        except Exception as exc:  # noqa: BLE001 - C1: there is no dispatcher yet that could answer
            try:
                return told(self._unanswered(exc, started, request))
            except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
                return REJECTED if request is None else UNKNOWN

    async def adispatch(self, /, *args: P.args, **kwargs: P.kwargs) -> DispatchResponse:
        """Hand the work over without blocking the event loop."""
        started, request = 0.0, None
        try:
            started = monotonic()
            if (recorder := recording.get()) is not None:
                return recorder.send(self._task, self._payload(args, kwargs), self)
            dispatcher, request = self._prepared(args, kwargs)
            return await dispatcher.adispatch(request)
        except Exception as exc:  # noqa: BLE001 - C1
            try:
                return told(self._unanswered(exc, started, request))
            except Exception:  # noqa: BLE001 - C1
                return REJECTED if request is None else UNKNOWN

    @overload
    def step(
        self: Dispatching[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def step(self, /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    def step(self, /, *args: Any, **kwargs: Any) -> Any:
        """Have the work run by a worker, and return the future of its result; in a workflow only.

        It is asked for at once: two steps that are made before the first is awaited run together.
        Awaiting one that failed for good raises `StepError`.

        Raises:
            NotDurableError: No workflow is running here.

            PayloadError: The arguments do not fit, or JSON could not carry them exactly.

            DeclarationError: The task's parameters or its result cannot travel.
        """
        recorder = recording.get()
        if recorder is None:
            raise _outside(self._task.name)
        return recorder.step(self._task, self._payload(args, kwargs), self)

    def request(self, /, *args: P.args, **kwargs: P.kwargs) -> DispatchRequest:
        """Make the request that `dispatch` would hand over, or raise.

        Raises:
            PayloadError: The arguments do not fit, or JSON could not carry them exactly.

            ValidationError: An option does not fit.

            DeclarationError: The task's signature cannot travel.
        """
        return self._request(self._head(), args, kwargs)

    def options(self, **options: Unpack[RequestOptions]) -> TaskOptions[P, R]:
        """Return the task with options that beat its own.

        A value that does not fit is the answer of `dispatch`, and raised by `request`.

        Raises:
            TypeError: An option has an unknown name.
        """
        return TaskOptions(self._task, {**self._options, **chosen_options(options)})

    def batch(self) -> TaskBatch[P]:
        """Return an empty batch, to `add` work to and `dispatch` it together."""
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
        """Return the dispatcher and the request for it."""
        # Read once, as another thread may route at the same time; either result is right.
        routed = self._routed
        if routed is None or routed[0] != state.generation:
            routed = self._route()
        codec = self._task.codec  # as `_payload` does: each dispatch would pay for the call
        payload = codec.encode(codec.named(args, kwargs) if args else kwargs)
        return routed[1], routed[2].request(payload)

    def _payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        codec = self._task.codec
        return codec.encode(codec.named(args, kwargs) if args else kwargs)

    def _alias(self) -> str:
        """Return the alias of the dispatcher, which is not built for it; `_dispatcher`'s rule."""
        chosen = self._options.get("dispatcher")
        if chosen is None:
            return state.snapshot.known(self._values()["dispatcher"] or DEFAULT)
        return chosen if is_instance(chosen, str) else alias_of(_a_dispatcher(chosen))

    def _route(self) -> tuple[int, Dispatcher, Head]:
        """Dispatcher and head, good until the configuration changes."""
        # Before anything is read: a change meanwhile makes this route stale at once, not valid.
        generation = state.generation
        self._routed = routed = (generation, safe(self._dispatcher()), self._head())
        return routed

    def _dispatcher(self) -> Dispatcher:
        """Return the dispatcher; only an alias of the task may fall back."""
        chosen = self._options.get("dispatcher")
        if chosen is None:
            return resolve(self._values()["dispatcher"])
        return get_dispatcher(chosen) if is_instance(chosen, str) else _a_dispatcher(chosen)

    def _values(self) -> dict[str, Any]:
        """Merge options: a request's beat the host's, those the task's."""
        policy = self._task.policy
        own = {"dispatcher": policy.dispatcher, **policy.for_requests()}
        host = {k: v for k, v in settings_of_task(self._task.name).items() if k in CARRIED}
        return {**own, **host, **self._options}

    def _head(self) -> Head:
        """Return the head, good until the configuration changes."""
        generation, known = state.generation, self._headed
        if known is None or known[0] != generation:
            self._headed = known = (generation, self._made_head())
        return known[1]

    def _made_head(self) -> Head:
        values = {k: v for k, v in self._values().items() if k != "dispatcher"}
        task = self._task
        if "delay" in self._options or "eta" in self._options:
            # The two exclude each other: the one given here must also unset the task's other one.
            values = {**dict.fromkeys(("delay", "eta")), **values}
        values |= {"task": task.name, "fingerprint": task.codec.fingerprint}
        return Head(DispatchRequest.model_validate(values))

    def _request(
        self, head: Head, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DispatchRequest:
        return head.request(self._payload(args, kwargs))

    def _unanswered(
        self, exc: Exception, started: float, request: DispatchRequest | None
    ) -> DispatchResponse:
        """Return the answer where the dispatcher raised, or there was none to ask."""
        if request is None:
            return self._unrouted(exc, started)
        alias = alias_of(self._routed[1] if self._routed else "")
        return unknown(alias, request, exc, started)

    def _unrouted(self, exc: Exception, started: float) -> DispatchResponse:
        """Return the answer where no dispatcher gave one."""
        chosen = self._options.get("dispatcher")
        if chosen is None:
            chosen = self._task.policy.dispatcher or DEFAULT
        known = self._routed[1] if self._routed else None
        backend = known.name if isinstance(known, BaseDispatcher) else ""
        return unrouted(alias_of(chosen), backend, self._explained(exc), started)

    def _explained(self, exc: Exception) -> Exception:
        """Return the error with the task's name in front."""
        name = self._task.name
        if isinstance(exc, ValidationError):
            text = str(options_error(exc, DispatchRequest, f"task {name!r}"))
            return _rejected(ErrorCategory.INVALID, text, exc)
        if isinstance(exc, PayloadError | DeclarationError):
            return _rejected(ErrorCategory.INVALID, f"task {name!r}: {exc}", exc)
        return exc


class _Known(NamedTuple):
    """A head that is made already, and the alias."""

    head: Head
    alias: str

    def _head(self) -> Head:
        return self.head

    def _alias(self) -> str:
        return self.alias


def _outside(name: str) -> NotDurableError:
    return NotDurableError(
        f"task {name!r}: step() waits for a result, which only a workflow can, and none is running "
        "here: dispatch(...) hands the work over, and calling the task runs it here"
    )


def _a_dispatcher(given: object) -> Dispatcher:
    if not is_dispatcher(given):
        kind = f"the class {given.__name__}" if is_instance(given, type) else type(given).__name__
        raise Rejected(
            ErrorCategory.INVALID, f"dispatcher takes an alias or a dispatcher, not {kind}"
        )
    return given


def _rejected(category: ErrorCategory, message: str, cause: Exception) -> Rejected:
    error = Rejected(category, message)
    error.__cause__ = cause
    return error


class TaskOptions(Dispatching[P, R]):
    """A task with options: what `task.options(...)` gives."""

    def _made_head(self) -> Head:
        # Another dispatcher changes nothing of a request: the task's own head is made already.
        plain = len(self._options) == 1 and "dispatcher" in self._options
        if plain and isinstance(self._task, Dispatching):
            return self._task._head()
        return super()._made_head()

    def __reduce__(self) -> tuple[object, ...]:
        return _with_options, (self._task, self._options)

    def __repr__(self) -> str:
        return f"<task {self._task.name!r} with {', '.join(sorted(self._options))}>"


def _with_options(task: TaskDefinition, options: dict[str, Any]) -> TaskOptions[..., Any]:
    return TaskOptions(task, options)
