"""Settings from `DISPATCHERS_*` variables: their keys found, their text converted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from ._errors import ConfigurationError, nearest
from ._layers import CONFIG, Keys, Layer, Tree, normalised
from ._options import _models_in

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["EnvironmentText", "converted", "environment_layer"]

PREFIX = "DISPATCHERS_"
DEPTHS = {"targets": 3, "tasks": 2, "endpoint": 1}
"""Down to which level a variable may be a whole table, as JSON."""
IGNORED = re.compile(
    r"""DISPATCHERS_(
        CONFIG              # names the file, is no setting in it
      | (REQUIRE|TEST)_.*   # what the tests are to insist on
      | SERVICE_.*          # a Kubernetes service that is called "dispatchers" sets these
      | PORT(_.*)?          # the same
    )""",
    re.VERBOSE,
)


class EnvironmentText(str):
    """The text of a variable: the option that it is for decides what it means."""

    __slots__ = ()


def environment_layer(
    environ: Mapping[str, str], known: Tree, fields: Mapping[str, object]
) -> Layer:
    """What the variables say.

    Args:
        environ: The environment.

        known: What the other sources say: keys are matched with theirs, whatever their case.

        fields: The settings there are.

    Raises:
        ConfigurationError: A variable names no setting, or its text is not what it must be.
    """
    values: Tree = {}
    origins: dict[Keys, str] = {}
    for name in sorted(environ):
        if _is_setting(name) and environ[name] != "":
            keys = _keys(name, known, fields)
            _put(values, keys, _value(keys, environ[name], name), name)
            origins[keys] = f"variable {name}"
    return normalised(values, "the environment", _spread(Layer(values), origins))


def _is_setting(name: str) -> bool:
    return name.startswith(PREFIX) and not IGNORED.fullmatch(name)


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
    """The known key that a part of a variable's name means; a new one is in lower case."""
    if not part:
        raise ConfigurationError(f"variable {name} has an empty key between its underscores")
    known = list(at) if isinstance(at, dict) else []
    same = [key for key in known if _plain(key) == _plain(part)]
    if part in same or not same:
        return part if part in same else part.lower()
    if len(same) > 1:
        names = " and ".join(map(repr, same))
        raise ConfigurationError(f"variable {name} could mean {names}: rename one of them")
    return str(same[0])


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", key.lower())


def _value(keys: Keys, text: str, name: str) -> object:
    """The text itself, or what it says as JSON where a table stands or it is one."""
    if keys == ("tasks",) and text.lstrip()[:1] not in {"{", "["}:
        return [part.strip() for part in text.split(",")]
    whole = len(keys) <= DEPTHS.get(keys[0], 0)
    if not (whole and text.lstrip()[:1] in {"{", "["}):
        return EnvironmentText(text)
    try:
        return cast("object", from_json(text))
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
    """The variable of each value, also of those within a JSON table."""
    return {
        keys: next(origins[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origins)
        for keys in layer.origins
    }


# What the text means.


def converted(values: Mapping[str, object], model: type[BaseModel]) -> Tree:
    """The values with the text of variables made what the fields of `model` are."""
    fields = model.model_fields
    return {
        key: _converted(value, fields[key].annotation if key in fields else None)
        for key, value in values.items()
    }


def _converted(value: object, annotation: object) -> object:
    if isinstance(value, EnvironmentText):
        return meaning(str(value), annotation)
    if not isinstance(value, dict):
        return value
    inner = _models_in(annotation)
    if inner:
        return converted(value, inner[0])
    return {key: _converted(each, None) for key, each in value.items()}


def meaning(text: str, annotation: object) -> object:
    """What a text means for a field: as it is, as a number or truth value, JSON, or a list.

    A text that means nothing there stays a text, for validation to refuse.
    """
    from pydantic import TypeAdapter

    if annotation is None:
        return text
    for reading in (_as_text, _as_json, _as_list):
        try:
            return reading(text, TypeAdapter(cast("type[Any]", annotation)))
        except (ValueError, TypeError, ValidationError, PydanticUserError):
            continue
    return text


def _as_text(text: str, adapter: TypeAdapter[Any]) -> object:
    return adapter.validate_strings(text)


def _as_json(text: str, adapter: TypeAdapter[Any]) -> object:
    value: object = from_json(text)
    return value if isinstance(value, dict) else adapter.validate_json(text, strict=True)


def _as_list(text: str, adapter: TypeAdapter[Any]) -> object:
    if text.lstrip()[:1] in {"{", "["}:
        raise ValueError("meant as JSON")
    return adapter.validate_python([part.strip() for part in text.split(",")], strict=False)
