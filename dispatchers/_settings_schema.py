"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from ._config import Settings
from ._docstrings import field_docstrings
from ._options import BackendOptions
from ._registry import BackendInfo, backends

__all__ = ["settings_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


class _Permissive(GenerateJsonSchema):
    """Describes what JSON cannot hold, an application's own object for one, as anything."""

    def handle_invalid_for_json_schema(
        self,
        schema: Any,
        error_info: str,
    ) -> JsonSchemaValue:
        return {}


def settings_schema() -> Schema:
    """The JSON Schema of `dispatchers.toml`, with the options of every backend that is there."""
    definitions: Schema = {}
    whole = _described(Settings, "settings", definitions)
    choices = [_ref(_backend(info, definitions)) for info in backends()]
    definitions["backend.auto"] = _with_backend(
        _described(BackendOptions, "auto", definitions), "auto", more=True
    )
    whole["properties"]["targets"] |= _targets([*choices, _ref("backend.auto")])
    whole["properties"]["endpoint"] = _endpoint(definitions)
    whole["properties"]["tasks"] = _list_or(whole["properties"]["tasks"])
    return {"$schema": DIALECT, **whole, "title": "dispatchers", "$defs": definitions}


def _endpoint(definitions: Schema) -> Schema:
    from .http import EndpointSettings

    return _described(EndpointSettings, "endpoint", definitions)


def _described(model: type[BaseModel], prefix: str, definitions: Schema) -> Schema:
    """A model's schema; what it refers to goes to `definitions` under names of its own."""
    schema = model.model_json_schema(
        ref_template=f"#/$defs/{prefix}.{{model}}", schema_generator=_Permissive
    )
    for name, text in field_docstrings(model).items():
        schema["properties"].get(name, {}).setdefault("description", text)
    inner: Mapping[str, object] = schema.pop("$defs", {})
    definitions.update({f"{prefix}.{name}": each for name, each in inner.items()})
    return schema


def _backend(info: BackendInfo, definitions: Schema) -> str:
    """Put a backend's table into `definitions`; without its class, anything may stand there."""
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
