"""Expressions of a workflow's source that are sets, whose order differs between processes."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from ._lint_names import Names

__all__ = ["Sets"]

KINDS = (set, frozenset)
OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
METHODS = frozenset({"copy", "difference", "intersection", "symmetric_difference", "union"})


class Sets:
    """The sets of one function.

    Args:
        names: The function's names.

        tree: Its definition.
    """

    def __init__(self, names: Names, tree: ast.AST) -> None:
        self._names = names
        self._variables = frozenset(_annotated(tree))
        bound = Counter(_stored(tree))
        # Only those that hold a set wherever they are bound: `done, pending = await wait(...)`
        # gives a set of futures, whose order is the same at each replay.
        given = Counter(self._given(tree))
        self._variables |= {name for name in given if given[name] == bound[name]}

    def holds(self, node: ast.expr) -> bool:
        """Tell whether an expression is known to be a set."""
        if isinstance(node, ast.Set | ast.SetComp):
            return True
        if isinstance(node, ast.Call):
            return self._is_call(node.func)
        if isinstance(node, ast.BinOp) and isinstance(node.op, OPERATORS):
            return self.holds(node.left) or self.holds(node.right)
        if isinstance(node, ast.Name) and node.id in self._variables:
            return True
        return issubclass(type(self._names.resolve(node).value), KINDS)

    def _is_call(self, called: ast.expr) -> bool:
        if isinstance(called, ast.Attribute) and called.attr in METHODS:
            return self.holds(called.value)
        value = self._names.resolve(called).value
        return any(value is kind for kind in KINDS)

    def _given(self, tree: ast.AST) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and self.holds(node.value):
                yield from (each.id for each in node.targets if isinstance(each, ast.Name))
            elif isinstance(node, ast.AugAssign) and isinstance(node.op, OPERATORS):
                yield from (each.id for each in (node.target,) if isinstance(each, ast.Name))


def _annotated(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and _names_set(node.annotation):
            yield node.arg
        elif isinstance(node, ast.AnnAssign) and _names_set(node.annotation):
            yield from (each.id for each in (node.target,) if isinstance(each, ast.Name))


def _names_set(annotation: ast.expr | None) -> bool:
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(base, ast.Name) and base.id in ("set", "frozenset")


def _stored(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
