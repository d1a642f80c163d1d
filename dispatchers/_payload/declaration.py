"""Checks of a declaration, on the schema of its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import CoreSchema, to_json

from dispatchers._payload.equality import compare_arguments
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers._payload.explain import explain
from dispatchers._payload.schema import build_validator, optional
from dispatchers._payload.schema_reader import OBJECTS, Node, Reader, bare, choices, fields
from dispatchers._payload.unions import Unions

_Step = tuple[str, Node, bool]
"""A part of the path, the node there, and whether it is the key of a mapping."""


def check_schema(schema: Node) -> None:
    """Accept the arguments' schema if every value of it travels one way only.

    Raises:
        DeclarationError: A type cannot be read from JSON, or a union is ambiguous.

    """
    _Inspection(schema).visit("", schema, is_key=False)


def check_defaults(defaults: dict[str, Any], schema: CoreSchema) -> None:
    """Accept defaults that are values of their own annotations.

    Raises:
        DeclarationError: One is not.

    """
    if not defaults:
        return
    try:
        # As arguments: a default travels as they do, and must arrive as itself.
        compare_arguments(defaults, build_validator(optional(schema)).validate_python(defaults))
    except ValidationError as error:
        raise _misfit(defaults, explain(error, defaults)) from None
    except PayloadError as error:
        raise _misfit(defaults, error) from None


def _misfit(defaults: dict[str, Any], error: PayloadError) -> DeclarationError:
    name = re.split(r"[.\[]", error.path)[0]
    is_none = defaults.get(name, ...) is None
    cure = "annotate it as `... | None`" if is_none else "correct the one or the other"
    problem = error.problem.partition(":")[0]
    return DeclarationError(f"the default of parameter {error.path!r} {problem}: {cure}")


class _Inspection:
    def __init__(self, schema: Node) -> None:
        self._reader = Reader(schema)
        self._unions = Unions(self._reader)
        self._seen: set[int] = set()

    def visit(self, path: str, node: Node, *, is_key: bool) -> None:
        """Check a node and everything below it, each once."""
        node = self._reader.follow(node)
        # By identity: nodes are dicts, and a recursive model leads back to the same one.
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        self._check(path.removeprefix("."), node, is_key=is_key)
        for part, inner, inner_is_key in _steps(node, is_key=is_key):
            self.visit(path + part, inner, is_key=inner_is_key)

    def _check(self, path: str, node: Node, *, is_key: bool) -> None:
        if cure := _UNREADABLE.get(node["type"]):
            raise DeclarationError(f"parameter {path!r} is {_spelled(node)}, {cure}")
        if node.get("tz_constraint") == "naive":
            raise DeclarationError(
                f"parameter {path!r} takes naive datetimes, which denote no instant: "
                "annotate it as an aware datetime"
            )
        if node["type"] == "literal" and not _is_read_back(node, is_key=is_key):
            raise DeclarationError(
                f"parameter {path!r} is {_spelled(node)}, of which JSON cannot carry every value: "
                "write text or whole numbers, or derive the enum from str or int"
            )
        if node["type"] == "union":
            self._check_union(path, node, is_key=is_key)

    def _check_union(self, path: str, node: Node, *, is_key: bool) -> None:
        clash = self._unions.clash(self._reader.members(node), is_key=is_key)
        if clash:
            left, right = map(_spelled, clash)
            raise DeclarationError(
                f"parameter {path!r} is a union of {left} and {right}, and one JSON value could be "
                f"read as either: {_cure(*clash)}"
            )


def _is_read_back(node: Node, *, is_key: bool) -> bool:
    """Tell whether each value of a literal is read from the JSON that is written of it."""
    schema: Any = {"type": "dict", "keys_schema": node} if is_key else node
    validator = build_validator(schema)
    values = [{value: None} if is_key else value for value in node["expected"]]
    try:
        # Tried, not deduced: what an enum reads back depends on its own code.
        return all(validator.validate_json(to_json(value)) == value for value in values)
    except ValueError:
        return False


def _steps(node: Node, *, is_key: bool) -> Iterator[_Step]:
    """Yield the nodes directly below one, as strict JSON reads it."""
    if node["type"] in {"union", "tagged-union"}:
        yield from (("", choice, is_key) for choice in choices(node))
    yield from ((f".{name}", field, False) for name, field in fields(node))
    if "schema" in node:
        yield "", node["schema"], is_key
    yield from (("[]", item, False) for item in _items(node))
    if "keys_schema" in node:
        yield "[key]", node["keys_schema"], True


def _items(node: Node) -> Iterator[Node]:
    items = node.get("items_schema", [])
    yield from items if isinstance(items, list) else [items]
    yield from (node[key] for key in ("values_schema", "extras_schema") if key in node)


_BY_NAME = "which JSON cannot carry: pass a name by which the task finds it"


_UNREADABLE = {
    "callable": _BY_NAME,
    "is-instance": "which JSON cannot carry: pass an identifier and look the object up in the task",
    "is-subclass": _BY_NAME,
    "generator": "which can be read only once: annotate it as a list",
}


def _cure(left: Node, right: Node) -> str:
    if bare(left)["type"] in OBJECTS and bare(right)["type"] in OBJECTS:
        return (
            "give each a literal field of its own, such as `kind: Literal['card']`, "
            "and name it with Field(discriminator='kind')"
        )
    if {left["type"], right["type"]} == {"int", "float"}:
        return "annotate it as float, which takes whole numbers, too"
    return "keep one of them"


def _spelled(node: Node) -> str:
    """Spell a node as an annotation, as far as its schema tells."""
    if bare(node) is not node and "cls" not in bare(node):
        return f"{_spelled(bare(node))} with a validator"
    node = bare(node)
    if node["type"] == "is-subclass":
        return "a class"
    if cls := node.get("cls"):
        return str(getattr(cls, "__name__", cls))
    if node["type"] == "literal":
        return f"Literal[{', '.join(map(repr, node['expected']))}]"
    if isinstance(node.get("items_schema"), dict):
        return f"{node['type']}[{_spelled(node['items_schema'])}]"
    return _SPELLED.get(node["type"], str(node["type"]))


_SPELLED = {
    "none": "None",
    "any": "Any",
    "decimal": "Decimal",
    "uuid": "UUID",
    "callable": "a Callable",
    "generator": "an iterable or a generator",
    "function-plain": "a type with a validator of its own",
}
