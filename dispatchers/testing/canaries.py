"""Canaries: a test that fails when a private part of another library changes.

An adapter that relies on names its library does not promise lists them once, and its tests run
against the newest release of that library::

    from dispatchers.testing.canaries import Canary

    PRIVATE_PARTS = (
        Canary("kombu.transport.redis:Channel._brpop_start", "self", "timeout"),
        Canary("kombu.transport.redis:Channel._queue_cycle"),  # set by a method of the class
    )

    @pytest.mark.parametrize("part", PRIVATE_PARTS, ids=str)
    def test_a_private_part_is_unchanged(part: Canary) -> None:
        assert part.problem() is None
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator

__all__ = ["Canary"]

MISSING = object()


class Canary:
    """One name of another library, and the parameters it is called with.

    Args:
        name: `module:Class.member`. A member that only instances have counts as present where a
            method of the class, or of one of its bases, assigns it to `self`.

        parameters: The names that are passed, in order; without any, only the name is checked.
            Further parameters of the library's own are allowed if they have a default.
    """

    def __init__(self, name: str, *parameters: str) -> None:
        self.name = name
        self.parameters = parameters

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})" if self.parameters else self.name

    def problem(self) -> str | None:
        """Return what has changed, as a sentence; None where nothing has.

        Raises:
            ImportError: The module itself cannot be imported.
        """
        module, _, path = self.name.partition(":")
        found: object = importlib.import_module(module)
        for part in filter(None, path.split(".")):
            owner, found = found, inspect.getattr_static(found, part, getattr(found, part, MISSING))
            if found is MISSING:
                return None if _is_assigned(owner, part) else f"{self.name}: {part!r} is missing"
        return self._difference(found)

    def _difference(self, found: object) -> str | None:
        actual = _parameters(found)
        if not self.parameters or actual is None:
            return None
        named = [each.name for each in actual if each.name in self.parameters]
        needed = [each.name for each in actual if _is_needed(each, self.parameters)]
        # In order as well: they may be passed by position.
        if named == list(self.parameters) and not needed:
            return None
        own = ", ".join(str(each) for each in actual)
        return f"{self.name} takes ({own}), and is called with ({', '.join(self.parameters)})"


def _parameters(found: object) -> list[inspect.Parameter] | None:
    """Return the parameters; None where a function of C does not tell them."""
    function = getattr(found, "__func__", found)  # of static and class methods
    if not callable(function):
        return []
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:
        return None


def _is_needed(parameter: inspect.Parameter, given: tuple[str, ...]) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return not variadic and parameter.default is parameter.empty and parameter.name not in given


def _is_assigned(owner: object, name: str) -> bool:
    """Return True if a method of the class assigns `self.name`."""
    bases = inspect.getmro(owner) if isinstance(owner, type) else ()
    return any(name in set(_assigned(base)) for base in bases if base is not object)


def _assigned(base: type) -> Iterator[str]:
    try:
        source = textwrap.dedent(inspect.getsource(base))
    except (OSError, TypeError):  # written in C
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
