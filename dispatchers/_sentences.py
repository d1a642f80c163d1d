"""What pydantic finds wrong, in our words: one sentence per problem, never the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ._errors import ConfigurationError, nearest
from ._layers import Keys
from ._options import _known_at

__all__ = ["SeveralError", "joined", "path_of", "sentence", "sentences_of"]


def path_of(problem: ErrorDetails, raw: object) -> Keys:
    """The keys that were written, without what pydantic adds for members of unions."""
    keys: list[str] = []
    for part in problem["loc"]:
        if _holds(raw, part):
            keys.append(str(part))
            raw = cast("Any", raw)[part]
    return (*keys, str(problem["loc"][-1])) if problem["type"] == "missing" else tuple(keys)


def _holds(raw: object, part: int | str) -> bool:
    if isinstance(raw, list | tuple):
        return isinstance(part, int) and part < len(raw)
    return isinstance(raw, Mapping) and part in raw


def sentence(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong, without the value, and the nearest name for an unknown key."""
    if problem["type"] == "extra_forbidden":
        return f"unknown option{nearest(str(problem['loc'][-1]), _known_at(problem['loc'], model))}"
    if problem["type"] == "missing":
        return "is missing"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{message[:1].lower()}{message[1:]}"


class SeveralError(ConfigurationError):
    """Several problems in one error."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{len(problems)} problems:{lines}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


def joined(problems: Sequence[str]) -> ConfigurationError:
    """One error with every problem in it."""
    return ConfigurationError(problems[0]) if len(problems) == 1 else SeveralError(problems)


def sentences_of(exc: ConfigurationError) -> tuple[str, ...]:
    """Each problem that an error has in it."""
    return exc.problems if isinstance(exc, SeveralError) else (str(exc),)
