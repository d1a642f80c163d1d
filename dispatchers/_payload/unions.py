"""Which unions are ambiguous: one JSON value would be read by two members, with different results.

Judged by the schema alone, and by trying the values of literals and enums on the other member.
Two lists with different items, say, agree where the items do: both read an empty one alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import CoreSchema, to_json

from dispatchers._payload.schema import build_validator
from dispatchers._payload.schema_reader import (
    OBJECTS,
    Node,
    Reader,
    bare,
    fields,
    kinds,
    literal_values,
)

# Of these, two annotations differ by their constraints only: what both read is the same value.
_SAME_BY_TYPE = frozenset(
    {
        *("float", "decimal", "fraction", "complex", "uuid", "bytes"),
        *("date", "time", "datetime", "timedelta"),
    }
)


_ITEMS = frozenset({"list", "set", "frozenset", "deque"})


class Unions:
    """Comparison of the members of unions.

    Args:
        reader: Of the schema that the unions stand in.

    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        # Pairs that are being compared: a recursive type leads back to them.
        self._under_way: set[tuple[int, int]] = set()

    def clash(self, members: Iterable[Node], *, is_key: bool) -> tuple[Node, Node] | None:
        """Find the first two members that read one value differently."""
        listed = list(members)
        for position, left in enumerate(listed):
            for right in listed[:position]:
                if self._differ(right, left, is_key=is_key):
                    return right, left
        return None

    def _any_differ(self, left: Node, right: Node, *, is_key: bool = False) -> bool:
        """Compare the contents of two members; a recursive type ends."""
        pair = (id(left), id(right))
        if pair in self._under_way:
            return False
        self._under_way.add(pair)
        try:
            pairs = product(self._reader.members(left), self._reader.members(right))
            return any(self._differ(a, b, is_key=is_key) for a, b in pairs)
        finally:
            self._under_way.discard(pair)

    def _overlap(self, left: Node, right: Node, *, is_key: bool = False) -> bool:
        pairs = product(self._reader.members(left), self._reader.members(right))
        return any(kinds(a, is_key=is_key) & kinds(b, is_key=is_key) for a, b in pairs)

    def _differ(self, left: Node, right: Node, *, is_key: bool) -> bool:
        if not kinds(left, is_key=is_key) & kinds(right, is_key=is_key):
            return False
        native = self._reader.native
        # JSON's own types are told apart by the parser.
        if native(left, is_key=is_key) and native(right, is_key=is_key):
            return False
        if is_key:
            return left["type"] != right["type"] or left["type"] not in _SAME_BY_TYPE | {"int"}
        return self._read_differently(left, right)

    def _read_differently(self, left: Node, right: Node) -> bool:
        for one, other in ((left, right), (right, left)):
            if (values := literal_values(one)) is not None:
                return _class(left) is not _class(right) and self._any_accepted(values, other)
        if bare(left)["type"] in OBJECTS and bare(right)["type"] in OBJECTS:
            return _class(left) is not _class(right) and not self._told_apart(left, right)
        if left["type"] != right["type"]:
            return True
        return left["type"] not in _SAME_BY_TYPE and self._contents_differ(left, right)

    def _any_accepted(self, values: list[Any], node: Node) -> bool:
        """Try the values of a literal on another member, `true` also where `1` is one of them."""
        schema = {"type": "definitions", "schema": node, "definitions": self._reader.definitions}
        read = build_validator(cast("CoreSchema", schema)).validate_json
        # `1 == True` in Python, while JSON has two values; an enum reads `true` as 1.
        alike = [True] if 1 in values else []
        return any(_accepts(read, value) for value in [*values, *alike])

    def _contents_differ(self, left: Node, right: Node) -> bool:
        kind = left["type"]
        if kind in _ITEMS:
            return self._any_differ(_items(left), _items(right))
        if kind == "dict":
            return self._mappings_differ(left, right)
        return kind != "tuple" or self._tuples_differ(left, right)

    def _mappings_differ(self, left: Node, right: Node) -> bool:
        keys = left.get("keys_schema", _ANY), right.get("keys_schema", _ANY)
        values = left.get("values_schema", _ANY), right.get("values_schema", _ANY)
        if not self._overlap(*values):
            return False
        return self._any_differ(*keys, is_key=True) or self._any_differ(*values)

    def _tuples_differ(self, left: Node, right: Node) -> bool:
        # Not compared item by item: how many there are is not known.
        if "variadic_item_index" in left or "variadic_item_index" in right:
            return True
        if len(left["items_schema"]) != len(right["items_schema"]):
            return False
        pairs = list(zip(left["items_schema"], right["items_schema"], strict=True))
        return all(self._overlap(*pair) for pair in pairs) and any(
            self._any_differ(*pair) for pair in pairs
        )

    def _told_apart(self, left: Node, right: Node) -> bool:
        """Tell whether a required literal field keeps two models apart."""
        ours, theirs = self._tags(left), self._tags(right)
        return any(
            (ours[name][1] or theirs[name][1]) and not ours[name][0] & theirs[name][0]
            for name in ours.keys() & theirs.keys()
        )

    def _tags(self, node: Node) -> dict[str, tuple[frozenset[bytes], bool]]:
        """Fields that take literals only: the values, and whether the field is required."""
        found = {}
        for name, field in fields(_innermost(node)):
            values = literal_values(self._reader.follow(field))
            if values is not None:
                required = field.get("required", field["schema"]["type"] != "default")
                found[name] = frozenset(map(to_json, values)), required
        return found


_ANY: Node = {"type": "any"}


def _items(node: Node) -> Node:
    return cast("Node", node.get("items_schema", _ANY))


def _innermost(node: Node) -> Node:
    """Return the node that lists a model's or a dataclass's fields."""
    node = bare(node)
    while node["type"] in {"model", "dataclass"}:
        node = bare(node["schema"])
    return node


def _class(node: Node) -> Any:
    """Return a node's class; a literal's differs from all others."""
    return bare(node).get("cls") or object()


def _accepts(read: Callable[[bytes], Any], value: Any) -> bool:
    try:
        read(to_json(value))
    except ValidationError:
        return False
    return True
