"""Settings from `DISPATCHERS_*` variables: their keys found, their text converted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from dispatchers._config.layers import CONFIG, Keys, Layer, Tree, normalised
from dispatchers._errors import LONGEST_NAME, ConfigurationError, nearest
from dispatchers._models.paths import LocatedText, located, working_directory
from dispatchers._models.validation import _models_in

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "EnvironmentText",
    "converted",
    "environment_layer",
    "ignored_variables",
    "is_of_a_service",
]

PREFIX = "DISPATCHERS_"


DEPTHS = {"targets": 3, "tasks": 2, "endpoint": 1}
"""Down to which level a variable may be a whole table, as JSON."""


OURS = re.compile(
    r"""DISPATCHERS_(
        CONFIG              # names the file
      | (REQUIRE|TEST)_.*   # what the tests are to insist on
    )""",
    re.VERBOSE,
)
"""Variables of ours that are not settings."""


SERVICE = re.compile(
    r"""DISPATCHERS_(.+_)?(
        SERVICE_(HOST|PORT(_.+)?)
      | PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?
    )""",
    re.VERBOSE,
)
"""Variables that Kubernetes sets in every pod for a service whose name begins with ours:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables (1.31)."""


TYPO = 0.75
"""Likeness, as `difflib` has it, from which on an unknown name is a setting's, misspelt."""


class EnvironmentText(LocatedText):
    """Text of a variable, converted as the option's type demands."""

    __slots__ = ()


def environment_layer(
    environ: Mapping[str, str], known: Tree, fields: Mapping[str, object]
) -> Layer:
    """Return the settings of the variables.

    Args:
        environ: The environment.

        known: What the other sources say: keys are matched with theirs, whatever their case.

        fields: The settings there are.

    Raises:
        ConfigurationError: A variable names no setting, or its text is not what it must be.
    """
    values: Tree = {}
    origins: dict[Keys, str] = {}
    folder = working_directory()
    # Sorted, so that a table comes before the variables that go into it.
    for name in sorted(environ):
        # Empty counts as unset: containers and CI cannot remove a variable, only empty it.
        if environ[name] != "" and _is_setting(name, fields):
            keys = _keys(name, known, fields)
            _put(values, keys, _value(keys, environ[name], name, folder), name)
            origins[keys] = f"variable {name}"
    return normalised(values, "the environment", _spread(Layer(values), origins))


def ignored_variables(environ: Mapping[str, str], fields: Iterable[str]) -> list[str]:
    """Return the variables with our prefix that are not settings."""
    ours = (name for name in sorted(environ) if name.startswith(PREFIX) and environ[name] != "")
    return [name for name in ours if not OURS.fullmatch(name) and not _is_setting(name, fields)]


def is_of_a_service(name: str) -> bool:
    """Tell whether Kubernetes sets variables of this name by itself."""
    return SERVICE.fullmatch(name) is not None


def _is_setting(name: str, fields: Iterable[str]) -> bool:
    """Tell whether a variable is a setting, or a misspelt one."""
    if not name.startswith(PREFIX) or OURS.fullmatch(name):
        return False
    # Two underscores are our notation: nothing else sets a variable of that form by chance.
    first, deeper, _ = name[len(PREFIX) :].partition("__")
    known = {_plain(field) for field in fields}
    if _plain(first) in known:
        return True
    if is_of_a_service(name):
        return False
    # A misspelt setting must be an error: ignored, work would go to the wrong queue.
    near = get_close_matches(_plain(first)[:LONGEST_NAME], {*known, "config"}, 1, TYPO)
    return bool(deeper or near or not first)


def _keys(name: str, known: Tree, fields: Mapping[str, object]) -> Keys:
    keys: list[str] = []
    at: object = {**dict.fromkeys(fields), **known}
    for part in name[len(PREFIX) :].split("__"):
        keys.append(_key(part, at, name))
        at = at.get(keys[-1]) if isinstance(at, dict) else None
    if keys[0] not in fields:
        variables = [f"{PREFIX}{field.upper()}" for field in fields]
        wrong = f"{PREFIX}{keys[0].upper()}"
        raise ConfigurationError(
            f"variable {name} names no setting{nearest(wrong, [CONFIG, *variables])}"
        )
    return tuple(keys)


def _key(part: str, at: object, name: str) -> str:
    """Return the known key for a part of a variable's name."""
    if not part:
        raise ConfigurationError(f"variable {name} has an empty key between its underscores")
    known = list(at) if isinstance(at, dict) else []
    same = [key for key in known if _plain(key) == _plain(part)]
    if part in same or not same:
        return part if part in same else part.lower()
    # They differ by case or punctuation only: guessing could configure the wrong one.
    if len(same) > 1:
        names = " and ".join(map(repr, same))
        raise ConfigurationError(f"variable {name} could mean {names}: rename one of them")
    return str(same[0])


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", key.lower())


def _value(keys: Keys, text: str, name: str, folder: str) -> object:
    """Return the text, or the table that it holds as JSON."""
    if keys == ("tasks",) and text.lstrip()[:1] not in {"{", "["}:
        return [part.strip() for part in text.split(",")]
    whole = len(keys) <= DEPTHS.get(keys[0], 0)
    if not (whole and text.lstrip()[:1] in {"{", "["}):
        return EnvironmentText(text, folder)
    try:
        return located(from_json(text), folder)
    except ValueError as exc:
        raise ConfigurationError(f"variable {name} is not JSON: {exc}") from None


def _put(values: Tree, keys: Keys, value: object, name: str) -> None:
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"variable {name} goes deeper than another that sets {key!r}")
        values = inner
    below = values.get(keys[-1])
    if isinstance(below, dict):
        if not isinstance(value, dict):
            raise ConfigurationError(f"variable {name} sets what others go into")
        below.update(value)
    else:
        values[keys[-1]] = value


def _spread(layer: Layer, origins: dict[Keys, str]) -> dict[Keys, str]:
    """Return the variable of each value, those in JSON tables included."""
    return {
        keys: next(origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins)
        for keys in layer.origins
    }


def converted(values: Mapping[str, object], model: type[BaseModel]) -> Tree:
    """Convert the text of variables to the types of a model's fields."""
    fields = model.model_fields
    return {
        key: _converted(value, fields[key].annotation if key in fields else None)
        for key, value in values.items()
    }


def _converted(value: object, annotation: object) -> object:
    if isinstance(value, EnvironmentText):
        found = meaning(str(value), annotation)
        return found if annotation is Any or annotation is object else located(found, value.folder)
    if not isinstance(value, dict):
        return value
    inner = _models_in(annotation)
    if inner:
        return converted(value, inner[0])
    return {key: _converted(each, None) for key, each in value.items()}


def meaning(text: str, annotation: object) -> object:
    """Convert a text to a field's type.

    It is tried as it is, as a number or truth value, as JSON, and as a list. A text that fits in no
    way stays a text, for validation to refuse.
    """
    # Late: a process without variables of ours needs none.
    from pydantic import TypeAdapter

    if annotation is None:
        return text
    # The plain text first: a text option may hold what looks like a number or like JSON.
    for reading in (_as_text, _as_json, _as_list):
        try:
            return reading(text, TypeAdapter(cast("type[Any]", annotation)))
        except (ValueError, TypeError, ValidationError, PydanticUserError):
            continue
    return text


def _as_text(text: str, adapter: TypeAdapter[Any]) -> object:
    return adapter.validate_strings(text)


def _as_json(text: str, adapter: TypeAdapter[Any]) -> object:
    # A table is validated by its model later, which names the key that is wrong.
    value: object = from_json(text)
    return value if isinstance(value, dict) else adapter.validate_json(text, strict=True)


def _as_list(text: str, adapter: TypeAdapter[Any]) -> object:
    if text.lstrip()[:1] in {"{", "["}:
        raise ValueError("meant as JSON")
    return adapter.validate_python([part.strip() for part in text.split(",")], strict=False)
