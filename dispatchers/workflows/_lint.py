"""Lint of workflow bodies: what would differ, or happen again, when the code is replayed."""

from __future__ import annotations

import ast
import linecache
import re
import types
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from dispatchers._tasks.task import Task

from ._lint_checks import Checks, Definition, Node
from ._lint_names import Names, plain

__all__ = ["Finding", "lint"]

SILENCED = re.compile(r"#\s*durable:\s*ok\b")


class Finding(NamedTuple):
    """A line of a workflow that a replay would not repeat."""

    file: str
    """Absolute path."""
    line: int
    message: str
    """The problem and the cure."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def lint(function: Callable[..., Any]) -> list[Finding]:
    """Return the findings in a workflow's function and in its module's functions that it calls.

    The comment `# durable: ok` silences a line. Code without source has no findings.

    Args:
        function: The function, or the task that it was made.
    """
    first = plain(function.function if isinstance(function, Task) else function)
    found: list[Finding] = []
    waiting, seen = [first] if first else [], set[types.FunctionType]()
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            findings, called = _checked(each)
            found += findings
            waiting += called
    return sorted(set(found))


def _checked(
    function: types.FunctionType,
) -> tuple[Iterable[Finding], Iterable[types.FunctionType]]:
    """Return the findings in one function, and the functions of its module that it calls."""
    code = function.__code__
    lines = tuple(linecache.getlines(code.co_filename, function.__globals__))
    tree = _definition(_parsed(lines), code)
    if tree is None:
        return (), ()
    checks = Checks(Names(function, tree), tree, function.__module__)
    found = [
        Finding(code.co_filename, node.lineno, message)
        for node, message in checks.found
        if not _silenced(node, lines)
    ]
    return found, checks.called


@lru_cache(maxsize=64)
def _parsed(lines: tuple[str, ...]) -> ast.Module:
    try:
        return ast.parse("".join(lines))
    except (SyntaxError, ValueError):  # the file was changed since it was imported
        return ast.Module([], [])


def _definition(module: ast.Module, code: types.CodeType) -> Definition | None:
    """Return the definition that a code object was made from."""
    for node in ast.walk(module):
        # The first line of a decorated function is that of its first decorator.
        if isinstance(node, Definition) and code.co_firstlineno == min(_first_lines(node)):
            return node
    return None


def _first_lines(node: Definition) -> Iterator[int]:
    yield node.lineno
    yield from (each.lineno for each in node.decorator_list)


def _silenced(node: Node, lines: tuple[str, ...]) -> bool:
    last = node.lineno if isinstance(node, ast.ExceptHandler) else node.end_lineno or node.lineno
    return any(SILENCED.search(line) for line in lines[node.lineno - 1 : last])
