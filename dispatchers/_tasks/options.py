"""Options of tasks: the one list of them, and their check when a task is defined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, JsonValue, ValidationError
from typing_extensions import TypedDict

from dispatchers._dispatch.protocol import Dispatcher
from dispatchers._errors import nearest
from dispatchers._models.base import Model
from dispatchers._models.fields import (
    Attempts,
    Priority,
    QueueName,
    Seconds,
    Span,
    TaskName,
    as_tuple,
)
from dispatchers._models.options import OnHandlerError
from dispatchers._models.request import Backoff, DispatchRequest
from dispatchers._models.validation import options_error
from dispatchers._payload.errors import DeclarationError


class SharedOptions(TypedDict, total=False):
    """Options of a task that one of its requests can override."""

    dispatcher: str | Dispatcher | None
    """An alias; in `options(...)` also a dispatcher object."""
    queue: str | None
    """The queue."""
    priority: int | None
    """-100 to 100, higher first."""
    time_limit: float | timedelta | None
    """Seconds, or a timedelta, for one run."""
    max_attempts: int | None
    """How often it is tried in all; default 1."""
    backoff: Backoff | None
    """Wait between attempts."""


class DeclaredOptions(SharedOptions, total=False):
    """The options of `@task` and `@declare`."""

    name: str | None
    """The registered name; by default module and function."""
    former_names: tuple[str, ...]
    """Names it had: work that was dispatched under them still runs."""
    expires: timedelta | None
    """Not run any more so long after the request was made."""
    retry_on: tuple[type[BaseException], ...]
    """Where given, the only exceptions after which it is tried again."""
    discard_on: tuple[type[BaseException], ...]
    """Exceptions after which it is dropped, as if it were done."""
    on_handler_error: OnHandlerError | None
    """`raise` a failure to the transport, or `log` it only."""


class RequestOptions(SharedOptions, total=False):
    """The options of `task.options(...)`."""

    delay: timedelta | None
    """How long to hold it back; not together with `eta`."""
    eta: datetime | None
    """When it becomes due, aware; not together with `delay`."""
    expires: timedelta | datetime | None
    """Not run any more after this."""
    deadline: float | None
    """Seconds for handing over."""
    idempotency_key: str | None
    """Work under the same key of the same task is the same work."""
    deduplicate: bool | None
    """Demand that the backend itself recognises duplicates."""
    headers: Mapping[str, str] | None
    """Text to text, W3C trace context among it."""
    context: Mapping[str, JsonValue] | None
    """A free JSON map that the handler reads from `current_run().request.context`."""


def _classes(value: object) -> object:
    given = tuple(value) if isinstance(value, list | set | frozenset) else value
    # A single class is taken as well, as `except` does.
    given = (given,) if isinstance(given, type) else given
    for item in given if isinstance(given, tuple) else ():
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise ValueError(f"takes exception classes, not {item!r}")  # noqa: TRY004 - pydantic's
    return given


Classes = Annotated[tuple[type[BaseException], ...], BeforeValidator(_classes)]


class Policy(Model):
    """The options of `@task` and `@declare`."""

    former_names: Annotated[tuple[TaskName, ...], BeforeValidator(as_tuple)] = ()
    dispatcher: str | None = None
    queue: QueueName | None = None
    priority: Priority | None = None
    expires: Span | None = None
    time_limit: Seconds | None = None
    max_attempts: Attempts | None = None
    backoff: Backoff | None = None
    retry_on: Classes = ()
    discard_on: Classes = ()
    on_handler_error: OnHandlerError | None = None

    @classmethod
    def of(
        cls, options: Mapping[str, Any], decorator: str = "@task", also: Sequence[str] = ("name",)
    ) -> Self:
        """Return the policy in the keywords of a decorator.

        Args:
            options: The keywords.

            decorator: Its name, for messages.

            also: Its keywords that are no part of a policy.

        Raises:
            DeclarationError: A value does not fit, or a keyword is unknown.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as exc:
            raise DeclarationError(str(options_error(exc, cls, decorator, also))) from None

    def for_requests(self) -> dict[str, timedelta | float | str | Backoff]:
        """Return the options that each request carries."""
        given = {name: getattr(self, name) for name in CARRIED if name != "dispatcher"}
        return {name: value for name, value in given.items() if value is not None}


CARRIED = frozenset(Policy.model_fields) & {"dispatcher", *DispatchRequest.model_fields}
"""Options that a task, the host's configuration and a request can each give."""


def chosen_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given to `task.options(...)` with a value.

    Raises:
        TypeError: An option has an unknown name.
    """
    known = RequestOptions.__annotations__.keys()
    for name in given:
        if name not in known:
            raise TypeError(f"options() has no option {name!r}{nearest(name, known)}")
    # None is left out, so that `options(queue=None)` leaves the task's own in place.
    return {name: value for name, value in given.items() if value is not None}
