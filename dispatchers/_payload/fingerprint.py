"""A task's arguments as JSON Schema, and the fingerprint by which two deployments compare them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import CoreSchema

# Words about a schema, and what applies when a value is absent: neither changes what is accepted.
_UNTOLD = frozenset({"title", "description", "default", "examples", "deprecated"})


# Of these, JSON Schema ignores the order.
_UNORDERED = frozenset({"required", "enum", "anyOf", "oneOf", "type"})


_REFERENCE = "#/$defs/"


_NO_WARNINGS: set[JsonSchemaWarningKind] = {
    *("skipped-choice", "non-serializable-default", "skipped-discriminator"),
}


class LenientSchema(GenerateJsonSchema):
    """Generator that describes a type without a JSON Schema as anything."""

    ignored_warning_kinds = _NO_WARNINGS

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        del schema, error_info
        return {}


def json_schema(schema: CoreSchema) -> dict[str, Any]:
    """Return the JSON Schema of what a core schema accepts."""
    return LenientSchema().generate(schema, mode="validation")


def fingerprint(schema: dict[str, Any]) -> str:
    """Twelve hexadecimal digits over names, types, constraints and required-ness.

    Titles, descriptions, defaults, and the order and the names of definitions do not count.
    """
    canonical = _canonical(schema, schema.get("$defs", {}), {})
    return hashlib.sha256(_text(canonical).encode()).hexdigest()[:12]


def _canonical(node: Any, definitions: dict[str, Any], seen: dict[str, int]) -> Any:
    if isinstance(node, list):
        return [_canonical(item, definitions, seen) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(node["$ref"].removeprefix(_REFERENCE), definitions, seen)
    return {
        key: _keyword(key, value, definitions, seen)
        for key, value in sorted(node.items())
        if key != "$defs" and (key not in _UNTOLD or isinstance(value, dict))
    }


def _keyword(key: str, value: Any, definitions: dict[str, Any], seen: dict[str, int]) -> Any:
    canonical = _canonical(value, definitions, seen)
    if key in _UNORDERED and isinstance(canonical, list):
        return sorted(canonical, key=_text)
    return canonical


def _text(canonical: Any) -> str:
    return json.dumps(canonical, sort_keys=True, separators=(",", ":"))


def _resolved(name: str, definitions: dict[str, Any], seen: dict[str, int]) -> Any:
    """Expand a definition at its first use, number it later."""
    if name in seen:
        return seen[name]
    seen[name] = len(seen)
    return _canonical(definitions.get(name, {}), definitions, seen)
