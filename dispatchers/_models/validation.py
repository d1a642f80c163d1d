"""Validation errors in plain words, one sentence each, without values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dispatchers._errors import ConfigurationError, nearest
from dispatchers._payload.errors import type_name

Keys = tuple[str, ...]


def options_error(
    error: ValidationError, model: type[BaseModel], where: str, also: Sequence[str] = ()
) -> ConfigurationError:
    """All that is wrong with a mapping of options, with the nearest name for each unknown key.

    Args:
        error: The error.

        model: What the options were validated by.

        where: What has the options, for people.

        also: Names of further options, which the model does not have.
    """
    lines = [_line(problem, model, also) for problem in error.errors(include_url=False)]
    return ConfigurationError(f"{where}: {'; '.join(lines)}")


def _line(problem: ErrorDetails, model: type[BaseModel], also: Sequence[str]) -> str:
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown option {path!r}{nearest(key, [*_known_at(problem['loc'], model), *also])}"
    if problem["type"] == "missing":
        return f"option {path!r} is missing"
    return f"option {path!r} {_said_of(problem)}"


def _said_of(problem: ErrorDetails) -> str:
    """Describe a problem without its value, with the type it had."""
    message = _message(problem)
    rest = message.removeprefix("Input ")
    # The type, never the value: a misplaced value may be a secret.
    if rest != message and problem["type"].endswith(("_type", "_instance_of")):
        return f"is {type_name(problem['input'])}, and {rest}"
    return f"{rest[:1].lower()}{rest[1:]}"


def _message(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    if problem["type"] == "too_short":  # pydantic names its own types: "Tuple should have ..."
        least, has = context["min_length"], context["actual_length"]
        return f"needs at least {least} item{'s'[: least != 1]}, and has {has or 'none'}"
    return problem["msg"].removeprefix("Value error, ")


def _known_at(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Return the field names at the place of an unknown key."""
    for part in loc[:-1]:
        found = model.model_fields.get(str(part))
        inner = [] if found is None else _models_in(found.annotation)
        model = inner[0] if inner else model
    return [name for name in model.model_fields if not name.startswith("_")]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    # A parameterised type such as `list[int]` is not a class that `issubclass` takes.
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def path_of(problem: ErrorDetails, raw: object) -> Keys:
    """Return the keys as written, without pydantic's own steps."""
    keys: list[str] = []
    for part in problem["loc"]:
        if _holds(raw, part):
            keys.append(str(part))
            raw = cast("Any", raw)[part]
    # A missing key is not in what was written, but is what the reader looks for.
    return (*keys, str(problem["loc"][-1])) if problem["type"] == "missing" else tuple(keys)


def _holds(raw: object, part: int | str) -> bool:
    if isinstance(raw, list | tuple):
        return isinstance(part, int) and part < len(raw)
    return isinstance(raw, Mapping) and part in raw


def sentence(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """Describe a problem, with the nearest name of an unknown key."""
    if problem["type"] == "extra_forbidden":
        return f"unknown option{nearest(str(problem['loc'][-1]), _known_at(problem['loc'], model))}"
    if problem["type"] == "missing":
        return "is missing"
    message = _message(problem).removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}"


class SeveralError(ConfigurationError):
    """Several problems in one error."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{len(problems)} problems:{lines}")

    def __reduce__(self) -> tuple[object, ...]:
        # By default it would be made from its `args`, here the joined text.
        return type(self), (self.problems,)


def joined(problems: Sequence[str]) -> ConfigurationError:
    """One error with every problem in it."""
    return ConfigurationError(problems[0]) if len(problems) == 1 else SeveralError(problems)


def sentences_of(exc: ConfigurationError) -> tuple[str, ...]:
    """Each problem that an error has in it."""
    return exc.problems if isinstance(exc, SeveralError) else (str(exc),)
