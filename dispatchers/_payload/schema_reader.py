"""A core schema as strict JSON validation reads it: the branch taken, the kinds of JSON read."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

Node = dict[str, Any]


OBJECTS = frozenset({"model", "dataclass", "typed-dict"})


_ALL = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


_TEXT = frozenset({"string"})


_NUMBERS = frozenset({"integer", "number"})


_KINDS: dict[str, frozenset[str]] = {
    "none": frozenset({"null"}),
    "bool": frozenset({"boolean"}),
    "int": frozenset({"integer"}),
    "float": _NUMBERS,
    **dict.fromkeys(("decimal", "fraction"), _NUMBERS | _TEXT),
    **dict.fromkeys(("str", "bytes", "date", "time", "datetime", "timedelta", "uuid"), _TEXT),
    **dict.fromkeys(("url", "multi-host-url", "complex", "json"), _TEXT),
    **dict.fromkeys(("list", "tuple", "set", "frozenset", "deque"), frozenset({"array"})),
    **dict.fromkeys(("dict", "ordered-dict", "counter", "defaultdict"), frozenset({"object"})),
    **dict.fromkeys(OBJECTS, frozenset({"object"})),
    **dict.fromkeys(("named-tuple", "arguments", "call"), frozenset({"array", "object"})),
}


_KIND_OF_VALUE = {int: "integer", str: "string", bool: "boolean", type(None): "null"}


# Whether JSON is what is read and whether strictly: both, here. The key leads to that branch.
_BRANCHES = {
    "json-or-python": "json_schema",
    "lax-or-strict": "strict_schema",
    **dict.fromkeys(("default", "custom-error", "definitions"), "schema"),
    **dict.fromkeys(("model-field", "typed-dict-field", "dataclass-field"), "schema"),
    **dict.fromkeys(("named-tuple-field",), "schema"),
}


_FUNCTIONS = frozenset({"function-before", "function-after", "function-wrap"})


_ALTERING = frozenset({"strip_whitespace", "to_lower", "to_upper"})


class Reader:
    """Reader of one core schema.

    Args:
        schema: The whole schema, with its definitions.

    """

    def __init__(self, schema: Node) -> None:
        self.definitions: list[Node] = schema.get("definitions", [])
        self._by_reference = {node["ref"]: node for node in self.definitions}

    def follow(self, node: Node) -> Node:
        """Return the node behind references and branches."""
        while True:
            if node["type"] == "definition-ref":
                node = self._by_reference[node["schema_ref"]]
            elif node["type"] == "chain":
                node = node["steps"][0]
            elif node["type"] in _BRANCHES:
                node = node[_BRANCHES[node["type"]]]
            else:
                return node

    def members(self, node: Node) -> Iterator[Node]:
        """Yield the members of a union, nested ones too, or the node."""
        node = self.follow(node)
        if node["type"] == "nullable":
            yield {"type": "none"}
            yield from self.members(node["schema"])
        elif node["type"] in {"union", "tagged-union"}:
            for choice in choices(node):
                yield from self.members(choice)
        else:
            yield node

    def native(self, node: Node, *, is_key: bool) -> bool:
        """Tell whether a node reads the JSON value itself."""
        kind = node["type"]
        if kind == "literal":
            return not any(isinstance(value, Enum) for value in node["expected"])
        if kind == "str":
            return not any(node.get(key) for key in _ALTERING)
        if is_key:
            return bool(kind == "any")
        return kind in {"any", "none", "bool", "int"} or self._is_native_container(node)

    def _is_native_container(self, node: Node) -> bool:
        if node["type"] == "list":
            return self._all_native(node.get("items_schema"), is_key=False)
        return (
            node["type"] == "dict"
            and self._all_native(node.get("keys_schema"), is_key=True)
            and self._all_native(node.get("values_schema"), is_key=False)
        )

    def _all_native(self, node: Node | None, *, is_key: bool) -> bool:
        if node is None:
            return True
        if node["type"] == "definition-ref":  # may lead back here, so it is not followed
            return _is_json_value(self._by_reference[node["schema_ref"]])
        return all(self.native(member, is_key=is_key) for member in self.members(node))


def _is_json_value(node: Node) -> bool:
    return bool(node["type"] == "json-or-python" and node["json_schema"]["type"] == "any")


def choices(node: Node) -> Iterator[Node]:
    """Yield the members of a union without their labels."""
    listed = node["choices"]
    for choice in listed.values() if isinstance(listed, dict) else listed:
        yield choice[0] if isinstance(choice, tuple) else choice


def fields(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the fields that a node itself lists, by name."""
    listed = node.get("fields", [])
    if isinstance(listed, dict):
        yield from listed.items()
    else:  # a dataclass lists names, besides
        yield from ((field["name"], field) for field in listed if isinstance(field, dict))


def bare(node: Node) -> Node:
    """Return the node within a user's validators."""
    while node["type"] in _FUNCTIONS:
        node = node["schema"]
    return node


def kinds(node: Node, *, is_key: bool) -> frozenset[str]:
    """Return the kinds of JSON value that a member reads."""
    node = bare(node)
    if is_key:
        return _TEXT
    if (values := literal_values(node)) is not None:
        return frozenset(kind for value in values for kind in _kinds_of_value(value))
    return _KINDS.get(node["type"], _ALL)


def literal_values(node: Node) -> list[Any] | None:
    """Return the values of a literal or an enum, else None."""
    listed = node.get({"literal": "expected", "enum": "members"}.get(node["type"], ""))
    if listed is None or "missing" in node:
        return None
    return [value.value if isinstance(value, Enum) else value for value in listed]


def _kinds_of_value(value: Any) -> frozenset[str]:
    if type(value) is int and value in {0, 1}:  # an enum reads true as 1
        return frozenset({"integer", "boolean"})
    return frozenset({_KIND_OF_VALUE.get(type(value), "")}) - {""} or _ALL
