"""Tasks: registered, named, typed functions, and the calls that dispatch them."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from ._catalogue import catalogue
from ._dispatching import Dispatching
from ._envelope_reader import envelope_reader
from ._errors import ConfigurationError
from ._instances import settings_of_task
from ._options import OnHandlerError
from ._origin import Definition, origin_of, refuse_unfindable, registered_name
from ._payload import PayloadCodec
from ._payload_errors import DeclarationError
from ._policy import Policy
from ._request import Backoff

__all__ = ["AnyTask", "Task", "declare", "task"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)  # noqa: PLC0105 - users read it
F = TypeVar("F")


class Task(Dispatching[P], Generic[P, R]):
    """A registered, named, typed function. Made by `@task` and `@declare`.

    `dispatch` and `adispatch` take exactly the function's parameters; calling the task calls
    the function.
    """

    def __init__(
        self, function: Callable[P, R], policy: Policy, *, name: str | None, implemented: bool
    ) -> None:
        refuse_unfindable(function, name)
        self.name = registered_name(function, name)
        self.origin = origin_of(function)
        self.definition = Definition(function)
        self.former_names = policy.former_names
        self.policy = policy
        self.time_limit = policy.time_limit
        """Seconds for one run, or None."""
        self.max_attempts = policy.max_attempts or 1
        """How often it is tried in all."""
        self.codec = PayloadCodec(function)
        self.codec.check_definition()
        self.implemented = implemented
        self._bind(function)
        super().__init__(self, {})
        catalogue.add(self)

    def _bind(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function: Callable[..., Any] = function
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(function)) or (
            inspect.iscoroutinefunction(function)
        )
        self.__dict__.pop("reader", None)

    # What the worker asks.

    @cached_property
    def backoff(self) -> Backoff:
        """The wait between attempts."""
        return self.policy.backoff or Backoff()

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:
        """Where given, the only failures that are tried again."""
        return self.policy.retry_on

    @property
    def discard_on(self) -> tuple[type[BaseException], ...]:
        """Failures after which the work is dropped as done."""
        return self.policy.discard_on

    @property
    def on_handler_error(self) -> OnHandlerError | None:
        """`raise` or `log`; the host's word on this task goes first."""
        try:
            host = settings_of_task(self.name).get("on_handler_error")
        except ConfigurationError:  # said at start-up, and no reason to lose a run's outcome
            host = None
        return cast("OnHandlerError | None", host) or self.policy.on_handler_error

    @cached_property
    def reader(self) -> Callable[[bytes], dict[str, Any]]:
        """From an envelope of this task to its fields, with the arguments typed.

        It raises `EnvelopeError` for what is none, `PayloadError` for arguments that do not fit.
        """
        return envelope_reader(self.codec)

    # What callers use, beside what `Dispatching` gives.

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        result: R = self.function(*args, **kwargs)
        return result

    def implement(self, function: Callable[P, Any]) -> Self:
        """Attach the body to a declared task; a decorator, used by the worker's code.

        Raises:
            DeclarationError: It has a body already, its parameters are not the declared ones, or
            it is no function that a worker could run.
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
        self.codec = codec
        self._bind(function)
        self.implemented = True
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """By name, and the module that registers it: a pickled task is the other process's own."""
        return _found, (self.__module__, self.name)

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"


AnyTask = Task[..., Any]
"""A task of whatever signature."""


def _found(module: str, name: str) -> AnyTask:
    """The task of that name, once the module that makes it is imported.

    Raises:
        LookupError: The module does not make it.
    """
    if catalogue.find(name) is None:
        importlib.import_module(module)
    return catalogue.get(name)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    former_names: tuple[str, ...] = (),
    dispatcher: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    expires: timedelta | None = None,
    time_limit: float | timedelta | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
    discard_on: tuple[type[BaseException], ...] = (),
    on_handler_error: OnHandlerError | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(  # noqa: D417 - the overloads name them
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Any:
    """Make a function a task.

    Args:
        function: The function; its parameters must be annotated with types that JSON can carry.

        name: The registered name; by default module and function.

        former_names: Names it had: work that was dispatched under them still runs.

        dispatcher: The alias of the dispatcher; by default `default`.

        queue: The queue.

        priority: -100 to 100, higher first.

        expires: Not run any more so long after the request was made.

        time_limit: Seconds, or a timedelta, for one run.

        max_attempts: How often it is tried in all; default 1.

        backoff: The wait between attempts.

        retry_on: Where given, the only exceptions after which it is tried again.

        discard_on: Exceptions after which it is dropped, as if it were done.

        on_handler_error: `raise` a failure to the transport, or `log` it only.

    Raises:
        DeclarationError: The definition cannot work; the message says why and what to do.
    """
    return _decorator(function, options, implemented=True)


@overload
def declare(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def declare(
    *,
    name: str | None = None,
    former_names: tuple[str, ...] = (),
    dispatcher: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    expires: timedelta | None = None,
    time_limit: float | timedelta | None = None,
    max_attempts: int | None = None,
    backoff: Backoff | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
    discard_on: tuple[type[BaseException], ...] = (),
    on_handler_error: OnHandlerError | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
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
    policy = Policy.of(options)

    def decorate(function: Callable[..., Any]) -> AnyTask:
        return Task(function, policy, name=name, implemented=implemented)

    return decorate if function is None else decorate(function)
