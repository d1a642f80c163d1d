"""Tasks: registered, named, typed functions, and the calls that dispatch them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from typing_extensions import Unpack

from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import DeclarationError
from dispatchers._tasks.calls import Dispatching
from dispatchers._tasks.definition import TaskDefinition
from dispatchers._tasks.envelope_reader import check_readable
from dispatchers._tasks.naming import origin_of, refuse_unfindable
from dispatchers._tasks.options import DeclaredOptions, Policy
from dispatchers._tasks.recorder import recording
from dispatchers._tasks.registry import Catalogue

P = ParamSpec("P")


R = TypeVar("R", covariant=True)  # noqa: PLC0105 - users read it


F = TypeVar("F")


class Task(TaskDefinition, Dispatching[P, R], Generic[P, R]):
    """A registered, named, typed function. Made by `@task` and `@declare`.

    `dispatch` and `adispatch` take exactly the function's parameters; calling the task calls
    the function.
    """

    def __init__(
        self, function: Callable[P, R], policy: Policy, *, name: str | None, implemented: bool
    ) -> None:
        super().__init__(function, policy, name=name, implemented=implemented)
        Dispatching.__init__(self, self, {})
        # Last: a task that failed to be made must not be found by a worker.
        catalogue.add(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now; in a workflow, that of an async task is a step."""
        if (recorder := recording.get()) is not None:
            return cast("R", recorder.call(self, lambda: self.step(*args, **kwargs)))
        result: R = self.function(*args, **kwargs)
        return result

    def implement(self, function: Callable[P, Any]) -> Self:
        """Attach the body to a declared task; a decorator.

        Raises:
            DeclarationError: It has a body already, its parameters are not the declared ones, or
            it is not a function that a worker could run.
        """
        refuse_unfindable(function, self.name)
        if self.implemented and origin_of(function) != origin_of(self.function):
            raise DeclarationError(
                f"task {self.name!r} is implemented by {origin_of(self.function)}: "
                f"{origin_of(function)} would replace it"
            )
        codec = PayloadCodec(function)
        if codec.fingerprint != self.codec.fingerprint:
            raise DeclarationError(
                f"{origin_of(function)} does not take the parameters that task {self.name!r} "
                "declares: names, types and which of them have a default must agree"
            )
        # Before the old codec is replaced: after an error the declaration still works.
        check_readable(codec)
        self.codec = codec
        self._bind(function)
        self.implemented = True
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """By name, and the module that registers it: a pickled task is the other process's own."""
        return _found, (self.__module__, self.name)


AnyTask = Task[..., Any]
"""A task of any signature."""

catalogue: Catalogue[AnyTask] = Catalogue()
"""The tasks of this process by name."""


def _found(module: str, name: str) -> AnyTask:
    """Return the task of that name; import its module if need be.

    Raises:
        LookupError: The module does not make it.
    """
    if catalogue.find(name) is None:
        importlib.import_module(module)
    return catalogue.get(name)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Unpack[DeclaredOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task.

    Args:
        function: The function; its parameters must be annotated with types that JSON can carry.

        options: Name, dispatcher, queue, limits, retries: see `DeclaredOptions`.

    Raises:
        DeclarationError: The definition cannot work; the message says why and what to do.
    """
    return _decorator(function, options, implemented=True)


@overload
def declare(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def declare(**options: Unpack[DeclaredOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def declare(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a task without its body, for processes that dispatch work they do not import.

    The worker attaches the body with `@the_task.implement`. Takes the options of `@task`.

    Raises:
        DeclarationError: The definition cannot work.
    """
    return _decorator(function, options, implemented=False)


def _decorator(
    function: Callable[..., Any] | None, options: dict[str, Any], *, implemented: bool
) -> Any:
    name = options.pop("name", None)
    policy = Policy.of(options, "@task" if implemented else "@declare")

    def decorate(function: Callable[..., Any]) -> AnyTask:
        return Task(function, policy, name=name, implemented=implemented)

    return decorate if function is None else decorate(function)
