"""What a task says of itself, checked once when it is defined."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ValidationError

from ._model import Model
from ._options import OnHandlerError, options_error
from ._payload_errors import DeclarationError
from ._request import Attempts, Backoff, Priority, QueueName, Seconds, Span, TaskName

__all__ = ["Policy"]


def _classes(value: object) -> object:
    given = tuple(value) if isinstance(value, list | set | frozenset) else value
    given = (given,) if isinstance(given, type) else given
    for item in given if isinstance(given, tuple) else ():
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise ValueError(f"takes exception classes, not {item!r}")  # noqa: TRY004 - pydantic's
    return given


def _names(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Classes = Annotated[tuple[type[BaseException], ...], BeforeValidator(_classes)]


class Policy(Model):
    """The options of `@task` and `@declare`."""

    former_names: Annotated[tuple[TaskName, ...], BeforeValidator(_names)] = ()
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
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The policy in the keywords of a decorator.

        Raises:
            DeclarationError: A value does not fit, or a keyword is unknown.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as exc:
            raise DeclarationError(str(options_error(exc, cls, "@task"))) from None

    def for_requests(self) -> dict[str, timedelta | float | str | Backoff]:
        """What of it each request carries."""
        carried = ("queue", "priority", "expires", "time_limit", "max_attempts", "backoff")
        given = {name: getattr(self, name) for name in carried}
        return {name: value for name, value in given.items() if value is not None}
