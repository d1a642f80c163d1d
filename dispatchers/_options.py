"""The options that every backend has."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

from ._breaker import BreakerSettings
from ._capabilities import OPTIONS
from ._errors import ConfigurationError, nearest
from ._model import Model
from ._payload_errors import type_name
from ._secrets import secrets_of, without_secrets

__all__ = ["BackendOptions", "OnHandlerError", "options_error"]

OnHandlerError = Literal["raise", "log"]


def _as_list(value: object) -> object:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


def _waivable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in OPTIONS:
            raise ValueError(f"no option {name!r} to waive{nearest(name, OPTIONS)}")
    return names


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


def _as_breaker(value: object) -> object:
    if type(value) is int:  # equal to False, as far as 0 goes
        raise ValueError("should be the breaker's settings, or false")
    return {} if value is True else value


Breaking = Annotated[BreakerSettings | Literal[False], BeforeValidator(_as_breaker)]


class BackendOptions(Model):
    """What can be configured for every dispatcher; a backend adds its own in a subclass."""

    def __repr__(self) -> str:
        """The values, the passwords of URLs struck out as secrets are."""
        return without_secrets(super().__repr__(), secrets_of(self))

    def __str__(self) -> str:
        return repr(self)

    queue: str | None = Field(default=None, min_length=1, max_length=255)
    """The queue of requests that name none; None leaves it to the backend."""
    queues: Names = ()
    """Queues that exist. If any is named, a request for another is refused, not created."""
    deadline: float = Field(default=2.0, gt=0, le=3600)
    """Seconds that handing over may take."""
    breaker: Breaking = Field(default_factory=BreakerSettings)
    """The circuit breaker's settings, or false."""
    waive: Annotated[Names, AfterValidator(_waivable)] = ()
    """Options that may be left out where the backend cannot: `["delay", "priority"]`."""
    on_handler_error: OnHandlerError | None = None
    """`raise` a task's failure to the transport, or `log` it only; None leaves it to the task."""
    idempotency: str | None = None
    """Where runs are remembered by key: `memory`, `sqlite:PATH`, `redis://HOST/DB` or
    `module:attribute`."""
    dead_letters: str | None = None
    """Where work that failed for good is kept: `memory`, `sqlite:PATH`, `redis://HOST/DB` or
    `module:attribute`."""
    max_deliveries: int = Field(default=5, ge=1)
    """Work that was delivered more often without an outcome is dead-lettered."""
    skew_grace: float = Field(default=900.0, ge=0)
    """Seconds that unknown tasks and newer envelopes are handed back before they are dead."""


def options_error(error: ValidationError, model: type[BaseModel], where: str) -> ConfigurationError:
    """All that is wrong with a mapping of options, with the nearest name for each unknown key."""
    lines = [_line(problem, model) for problem in error.errors(include_url=False)]
    return ConfigurationError(f"{where}: {'; '.join(lines)}")


def _line(problem: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown option {path!r}{nearest(key, _known_at(problem['loc'], model))}"
    if problem["type"] == "missing":
        return f"option {path!r} is missing"
    return f"option {path!r} {_said_of(problem)}"


def _said_of(problem: ErrorDetails) -> str:
    """Its own words; where the type is wrong, which type it was. Never the value."""
    message = problem["msg"].removeprefix("Value error, ")
    rest = message.removeprefix("Input ")
    if rest != message and problem["type"].endswith(("_type", "_instance_of")):
        return f"is {type_name(problem['input'])}, and {rest}"
    return f"{rest[:1].lower()}{rest[1:]}"


def _known_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The field names where an unknown key stands, one model down where the path goes deeper."""
    for part in loc[:-1]:
        found = model.model_fields.get(str(part))
        inner = [] if found is None else _models_in(found.annotation)
        model = inner[0] if inner else model
    return [name for name in model.model_fields if not name.startswith("_")]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
