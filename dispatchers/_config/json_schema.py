"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from dispatchers._config.references import ENDPOINT_SETTINGS
from dispatchers._config.registry import BackendInfo, backends
from dispatchers._config.settings import Settings
from dispatchers._models.options import BackendOptions
from dispatchers._payload.fingerprint import LenientSchema
from dispatchers._runtime.importing import import_object

__all__ = ["field_docstrings", "settings_schema"]


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each field, if the source is there."""
    found: dict[str, str] = {}
    # Base classes first, so that a subclass may describe a field anew.
    for cls in reversed(model.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found |= _of_class(cls)
    return found


def class_body(cls: type) -> list[ast.stmt]:
    """Return the statements of a class; none where its source is missing."""
    # A public class names the package as its module, and stands in another: from 3.13 on,
    # `inspect.getsource` then quotes lines of the wrong file.
    below = sorted(name for name in sys.modules if name.startswith(f"{cls.__module__}."))
    for name in (cls.__module__, *below):
        known = vars(sys.modules[name]) if sys.modules.get(name) else {}
        if known.get(cls.__name__) is cls and (found := _classes(name).get(cls.__name__)):
            return found.body
    return _local_body(cls)


def _local_body(cls: type) -> list[ast.stmt]:
    """Return the statements of a class that no module has by its name."""
    try:
        found = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError):
        # Without source, as in a frozen program, a schema without descriptions is still a schema.
        return []
    return found.body if isinstance(found, ast.ClassDef) and found.name == cls.__name__ else []


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {each.name: each for each in ast.walk(tree) if isinstance(each, ast.ClassDef)}


def _of_class(cls: type) -> dict[str, str]:
    body = class_body(cls)
    return dict(filter(None, (_documented(first, then) for first, then in pairwise(body))))


def _documented(first: ast.stmt, then: ast.stmt) -> tuple[str, str] | None:
    match first, then:
        case (
            ast.AnnAssign(target=ast.Name(id=name)),
            ast.Expr(value=ast.Constant(value=str(text))),
        ):
            return name, inspect.cleandoc(text)
        case _:
            return None


DIALECT = "https://json-schema.org/draft/2020-12/schema"


Schema = dict[str, Any]


def settings_schema() -> Schema:
    """Return the JSON Schema of `dispatchers.toml`, with each backend's options."""
    definitions: Schema = {}
    whole = _described(Settings, "settings", definitions)
    choices = [_ref(_backend(info, definitions)) for info in backends()]
    definitions["backend.auto"] = _with_backend(
        _described(BackendOptions, "auto", definitions), "auto", more=True
    )
    whole["properties"]["targets"] |= _targets([*choices, _ref("backend.auto")])
    whole["properties"]["endpoint"] = _endpoint(definitions)
    # As a list, `tasks` names modules, as the loader reads it.
    whole["properties"]["tasks"] = _list_or(whole["properties"]["tasks"])
    return {"$schema": DIALECT, **whole, "title": "dispatchers", "$defs": definitions}


def _endpoint(definitions: Schema) -> Schema:
    model: type[BaseModel] = import_object(ENDPOINT_SETTINGS)
    return _described(model, "endpoint", definitions)


def _described(model: type[BaseModel], prefix: str, definitions: Schema) -> Schema:
    """Return a model's schema; its references go to `definitions`."""
    # Prefixed: two backends may have models of one name.
    schema = model.model_json_schema(
        ref_template=f"#/$defs/{prefix}.{{model}}", schema_generator=LenientSchema
    )
    for name, text in field_docstrings(model).items():
        schema["properties"].get(name, {}).setdefault("description", text)
    inner: Mapping[str, object] = schema.pop("$defs", {})
    definitions.update({f"{prefix}.{name}": each for name, each in inner.items()})
    return schema


def _backend(info: BackendInfo, definitions: Schema) -> str:
    """Put a backend's table into `definitions`; without a class it is open."""
    options: Schema = {"type": "object", "properties": {}}
    if info.cls is not None:
        options = _described(info.cls.Options, info.name, definitions)
    key = f"backend.{info.name}"
    definitions[key] = _with_backend(options, info.name, more=info.cls is None)
    return key


def _with_backend(schema: Schema, name: str, *, more: bool) -> Schema:
    return {
        **schema,
        "title": name,
        "properties": {"backend": {"const": name}, **schema["properties"]},
        "required": ["backend", *schema.get("required", ())],
        "additionalProperties": more,
    }


def _ref(key: str) -> Schema:
    return {"$ref": f"#/$defs/{key}"}


def _targets(choices: list[Schema]) -> Schema:
    named = {"type": "string", "description": "A backend without options."}
    dispatcher = {"anyOf": [named, *choices]}
    target = {"type": "object", "additionalProperties": dispatcher}
    return {"type": "object", "additionalProperties": target}


def _list_or(table: Schema) -> Schema:
    modules = {"type": "array", "items": {"type": "string"}, "description": "The same as modules."}
    about: Schema = {key: table.pop(key) for key in ("description", "title") if key in table}
    return {**about, "anyOf": [modules, table]}
