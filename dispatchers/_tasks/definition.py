"""A task as the registry and the worker know it: name, signature, function, policy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

from dispatchers._config.api import settings_of_task
from dispatchers._errors import ConfigurationError
from dispatchers._models.options import OnHandlerError
from dispatchers._models.request import Backoff
from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import DeclarationError
from dispatchers._payload.result import ResultCodec
from dispatchers._tasks.envelope_reader import check_readable, envelope_reader
from dispatchers._tasks.naming import Definition, origin_of, refuse_unfindable, registered_name
from dispatchers._tasks.options import Policy


class TaskDefinition:
    """A registered, named, typed function, without what dispatches it.

    Args:
        function: The function; a declared task's has the signature only.

        policy: The options of the decorator.

        name: The registered name; None takes module and function.

        implemented: Whether the function is the body, which a worker may run.
    """

    is_workflow = False
    """Whether a call of it is an execution, which the journal keeps."""

    def __init__(
        self, function: Callable[..., Any], policy: Policy, *, name: str | None, implemented: bool
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
        # Now, not in the first worker: what cannot be read back must not be dispatched.
        check_readable(self.codec)
        self.implemented = implemented
        self._declared = function
        self._bind(function)

    def _bind(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(cast("Any", self), function, updated=())
        self.function: Callable[..., Any] = function
        # Both: a decorator may wrap an async function in a plain one, or a plain one in an async.
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(function)) or (
            inspect.iscoroutinefunction(function)
        )
        # What is cached may be of the former signature.
        self.__dict__.pop("reader", None)
        self.__dict__.pop("results", None)

    @cached_property
    def backoff(self) -> Backoff:
        """Wait between attempts."""
        return self.policy.backoff or Backoff()

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:
        """Exceptions that alone are tried again, if any are named."""
        return self.policy.retry_on

    @property
    def discard_on(self) -> tuple[type[BaseException], ...]:
        """Failures after which the work is dropped as done."""
        return self.policy.discard_on

    @property
    def on_handler_error(self) -> OnHandlerError | None:
        """`raise` or `log`; the host's configuration goes first."""
        try:
            host = settings_of_task(self.name).get("on_handler_error")
        except ConfigurationError:  # said at start-up, and no reason to lose a run's outcome
            host = None
        return cast("OnHandlerError | None", host) or self.policy.on_handler_error

    @cached_property
    def reader(self) -> Callable[[bytes], dict[str, Any]]:
        """Reader of this task's envelopes, with the arguments typed.

        It raises `EnvelopeError` for what is none, `PayloadError` for arguments that do not fit.
        """
        return envelope_reader(self.codec)

    @cached_property
    def results(self) -> ResultCodec:
        """Codec of this task's results, for workflows that await it.

        Raises:
            DeclarationError: A result of the annotated type could not travel exactly.
        """
        # Late: most tasks are no steps, and need not have a result that travels.
        try:
            return ResultCodec.of(self.function, self._declared)
        except DeclarationError as exc:
            raise DeclarationError(f"task {self.name!r} cannot be a step: {exc}") from exc

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"
