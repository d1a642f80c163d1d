"""Names in a function's source, resolved to the objects that they stand for."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["MISSING", "Named", "Names", "canonical"]

MISSING: Any = object()
"""Stands for an object that is not known before the code runs."""
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class Named(NamedTuple):
    """An expression's dotted name and object."""

    path: str = ""
    """As it is written, aliases replaced; empty if it is not known."""
    value: Any = MISSING

    @property
    def names(self) -> tuple[str, str]:
        """Return the written name, and the one that the object was defined under."""
        return self.path, "" if self.value is MISSING else canonical(self.value)


UNKNOWN = Named()


def canonical(value: object) -> str:
    """Return the dotted name that an object was defined under; for an instance, its type's."""
    kind: type[Any] = type(value)
    known: Any = value
    # By `type`, as a proxy runs code when it is asked for its class.
    if issubclass(kind, types.ModuleType):
        return str(known.__name__)
    if kind in FUNCTIONS:
        owner = getattr(value, "__self__", None)
        # That of a module's own builtin is the module.
        if owner is not None and not isinstance(owner, types.ModuleType):
            return f"{canonical(owner)}.{known.__name__}"
    elif not issubclass(kind, type):
        return canonical(kind)
    return f"{known.__module__}.{known.__qualname__}"


class Names:
    """Names of one function: its own, those it closes over, its module's, the builtins.

    Nothing is imported, and no code of what is found is run.

    Args:
        function: The function.

        tree: Its definition.
    """

    def __init__(self, function: types.FunctionType, tree: ast.AST) -> None:
        self._globals = function.__globals__
        self.closed_over = dict(_cells(function))
        self._own = frozenset(_own(function.__code__))
        self._imports = dict(_imports(tree, self._globals.get("__package__") or ""))

    def resolve(self, node: ast.AST) -> Named:
        """Return the name and the object of an expression, as far as they are known."""
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.Attribute):
            return _member(self.resolve(node.value), node.attr)
        return UNKNOWN

    def is_known(self, node: ast.AST) -> bool:
        """Tell whether an expression stands for an object that outlives the function's call."""
        return self.resolve(node).value is not MISSING

    def _named(self, name: str) -> Named:
        if name in self._imports:
            return _loaded(self._imports[name])
        if name in self._own:
            return UNKNOWN
        if name in self.closed_over:
            return Named(canonical_or(name, self.closed_over[name]), self.closed_over[name])
        if name in self._globals:
            return Named(canonical_or(name, self._globals[name]), self._globals[name])
        return Named(f"builtins.{name}", getattr(builtins, name, MISSING))


def canonical_or(name: str, value: object) -> str:
    """Return the dotted name of an object; a value that has none keeps the given one."""
    return name if value is MISSING else canonical(value)


def _member(base: Named, name: str) -> Named:
    """Return an attribute, read without running any code."""
    kind = type(base.value)
    if base.value is MISSING:
        return Named(f"{base.path}.{name}" if base.path else "")
    path = f"{canonical(base.value)}.{name}"
    if issubclass(kind, types.ModuleType | type):
        return Named(path, vars(base.value).get(name, MISSING))
    return Named(path)


def _loaded(dotted: str) -> Named:
    """Return what an import inside the function names, without importing it."""
    if dotted in sys.modules:
        return Named(dotted, sys.modules[dotted])
    module, _, name = dotted.rpartition(".")
    if module in sys.modules:
        return Named(dotted, vars(sys.modules[module]).get(name, MISSING))
    return Named(dotted)


def _cells(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            yield name, MISSING


def _own(code: types.CodeType) -> Iterator[str]:
    """Return the names that the function, or a function in it, binds itself."""
    yield from code.co_varnames
    yield from code.co_cellvars
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _own(each)


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.partition(".")[0]
                yield (each.asname, each.name) if each.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            for each in node.names:
                yield each.asname or each.name, f"{module}.{each.name}"


def plain(function: Callable[..., Any]) -> types.FunctionType | None:
    """Return the function under its decorators, if it is written in Python."""
    found = inspect.unwrap(function)
    return found if isinstance(found, types.FunctionType) else None
