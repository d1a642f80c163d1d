"""`@workflow`: an async function whose awaits are recorded, as a task that begins an execution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from typing_extensions import Unpack

from dispatchers._config.layers import DEFAULT
from dispatchers._dispatch.reporting import told
from dispatchers._journal.failure import for_people
from dispatchers._models.response import DispatchResponse
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._payload.result import ResultCodec
from dispatchers._tasks.naming import origin_of
from dispatchers._tasks.options import DeclaredOptions, Policy
from dispatchers._tasks.recorder import recording
from dispatchers._tasks.task import Task
from dispatchers._worker.waking import TURN
from dispatchers.workflows._events import Event
from dispatchers.workflows._execution import Execution
from dispatchers.workflows._guarded import StepCoroutine
from dispatchers.workflows._keys import execution_id
from dispatchers.workflows._tasks import began, turned
from dispatchers.workflows._versions import Version, Versions

__all__ = ["Workflow", "WorkflowOptions", "workflow"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)  # noqa: PLC0105 - users read it
T = TypeVar("T")


class WorkflowOptions(DeclaredOptions, total=False):
    """The options of `@workflow`: those of `@task`, and the version of the code."""

    version: int
    """The version on which executions begin; default 1."""


class Workflow(Task[P, R]):
    """A workflow: a task whose every dispatch begins an execution. Made by `@workflow`.

    The execution's id is the workflow's name, a slash, and the request's `idempotency_key`, else
    its id. The same id begins one execution, however often it is dispatched.
    """

    is_workflow = True

    def __init__(
        self, function: Callable[P, R], policy: Policy, *, name: str | None, version: int
    ) -> None:
        _refuse_sync(function)
        _refuse_number(version)
        self.latest = version
        """The version on which executions begin."""
        self._code = cast("Callable[..., Any]", function)
        self.versions = Versions(version)
        """The code by number."""
        super().__init__(function, policy, name=name, implemented=True)
        self.versions[version] = Version(version, self._code)
        # A worker that runs this task begins an execution, and does not run the code right away.
        self.function = self._began
        self.is_async = False
        self.turns = _turn_task(self)
        """The task by which executions are woken, signalled and cancelled."""

    @property
    def results(self) -> ResultCodec:  # pyright: ignore[reportIncompatibleVariableOverride] # by version
        """Codec of the result, for workflows that await this one."""
        return self.versions[self.latest].results

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the code, here and now; in another workflow, the call is a child."""
        if recording.get() is not None:
            return cast("R", StepCoroutine(lambda: self.step(*args, **kwargs)))
        return cast("R", self._code(*args, **kwargs))

    def implement(self, function: Callable[P, Any]) -> Self:
        """Refuse: a workflow has its code, and further code under a version.

        Raises:
            DeclarationError: Always.
        """
        raise DeclarationError(
            f"workflow {self.name!r} has its code: {origin_of(function)} can be another version "
            "of it, with `.version(...)`"
        )

    def version(self, number: int) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Any]:
        """Keep former code, for the executions that began with it; a decorator.

        Raises:
            DeclarationError: There is code of that version, or it is no async function.
        """
        _refuse_number(number)
        known = self.versions.get(number)

        def keep(function: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
            _refuse_sync(function)
            if known is not None:
                raise DeclarationError(
                    f"workflow {self.name!r} has a version {number}, {origin_of(known.function)}: "
                    f"give {origin_of(function)} another number"
                )
            self.versions[number] = Version(number, function)
            return function

        return keep

    def execution(self: Workflow[P, Coroutine[Any, Any, T]], key: str) -> Execution[T]:
        """Return one execution, to read and to steer; it need not be there yet.

        Args:
            key: The idempotency key of its start, or the id of the request.

        Raises:
            PayloadError: No start can have that key.
        """
        return Execution(execution_id(self.name, key), self.versions)

    def cancel(self, key: str, reason: str = "") -> DispatchResponse:
        """Cancel an execution: `CancelledError` is raised where its code waits.

        Never raises an `Exception`.

        Args:
            key: The idempotency key of its start, or the id of the request.

            reason: For people; at most 2,000 characters of it are kept.
        """
        return self._send(key, Event(kind="cancel", name=for_people(reason)))

    async def acancel(self, key: str, reason: str = "") -> DispatchResponse:
        """Cancel an execution without blocking the event loop."""
        return await self._asend(key, Event(kind="cancel", name=for_people(reason)))

    def _send(self, key: str, event: Event) -> DispatchResponse:
        """Hand a signal or a cancellation over. Never raises an `Exception`."""
        try:
            execution = execution_id(self.name, key)
        except PayloadError as exc:
            return self._refused(exc)
        return self.turns.dispatch(execution=execution, event=event)

    async def _asend(self, key: str, event: Event) -> DispatchResponse:
        try:
            execution = execution_id(self.name, key)
        except PayloadError as exc:
            return self._refused(exc)
        return await self.turns.adispatch(execution=execution, event=event)

    def _refused(self, exc: Exception) -> DispatchResponse:
        """Return the answer for what cannot be sent."""
        return told(self.turns._unrouted(exc, monotonic()))

    def _began(self, **arguments: object) -> None:
        """Begin the execution of the running request; its arguments are read at each replay."""
        del arguments
        began(self.name, self.versions, self._values()["dispatcher"] or DEFAULT)

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"


def _turn_task(flow: Workflow[..., Any]) -> Task[..., None]:
    def turn(execution: str, event: Event | None = None) -> None:
        turned(flow.name, flow.versions, execution, event)

    # A partial function has no name of its own.
    own_name = getattr(flow._code, "__qualname__", flow.name)
    turn.__module__, turn.__qualname__ = flow.__module__, own_name + TURN
    policy = Policy(
        dispatcher=flow.policy.dispatcher,
        queue=flow.policy.queue,
        priority=flow.policy.priority,
        former_names=tuple(name + TURN for name in flow.former_names),
    )
    return Task(turn, policy, name=flow.name + TURN, implemented=True)


def _refuse_sync(function: Callable[..., Any]) -> None:
    if not inspect.iscoroutinefunction(function):
        raise DeclarationError(
            f"{origin_of(function)} is no async function: a workflow awaits its steps, so write "
            "`async def`; its steps may be plain functions"
        )


def _refuse_number(number: object) -> None:
    if type(number) is not int or number < 1:
        raise DeclarationError(f"a version is a whole number from 1, not {number!r}")


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(**options: Unpack[WorkflowOptions]) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make an async function a workflow: what it awaits is recorded, and survives every process.

    Args:
        function: The function; its parameters must be annotated with types that JSON can carry.

        options: Those of `@task`, and `version`: see `WorkflowOptions`.

    Raises:
        DeclarationError: The definition cannot work; the message says why and what to do.
    """
    name, version = options.pop("name", None), options.pop("version", 1)
    policy = Policy.of(options, "@workflow", ("name", "version"))

    def decorate(function: Callable[..., Any]) -> Workflow[..., Any]:
        return Workflow(function, policy, name=name, version=version)

    return decorate if function is None else decorate(function)
