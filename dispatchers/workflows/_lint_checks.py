"""Checks of a workflow's definition, node by node."""

from __future__ import annotations

import ast
import contextlib
import types
from collections.abc import Iterator, MutableMapping, MutableSequence, MutableSet
from typing import Any, TypeAlias

from dispatchers._tasks.task import Task

from ._lint_names import Named, Names, plain
from ._lint_rules import MUTATORS, ORDER_FREE, ORDERED, rule_for
from ._lint_sets import Sets
from ._signal import Signal

__all__ = ["Checks", "Definition", "Node"]

Node: TypeAlias = ast.expr | ast.stmt | ast.ExceptHandler
Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
MUTABLE = (MutableMapping, MutableSequence, MutableSet)
LONGEST = 60
"""Characters of a name in a message."""
SHARED = (
    "changes what other executions and replays see: keep it in a variable of the workflow, or "
    "change it in a step"
)
UNORDERED = "is a set, which has another order in each process: take sorted(...) of it"
SWALLOWS = "swallows the cancellation of the workflow: catch Exception, or end with `raise`"
NOT_AWAITED = "is not awaited, and what nothing awaits may not run: await it, or `dispatch(...)` it"
NOT_RAISED = "is not raised, and does nothing: `raise restart(...)`"
IN_LAMBDA = "is a step in a lambda, which begins whenever that is called: write an `async def`"


class Checks(ast.NodeVisitor):
    """Collects the findings in one function.

    Args:
        names: The function's names.

        tree: Its definition.

        module: The module whose functions are to be checked as well, where they are called.
    """

    def __init__(self, names: Names, tree: Definition, module: str) -> None:
        self.found: list[tuple[Node, str]] = []
        self.called: list[types.FunctionType] = []
        self._names = names
        self._sets = Sets(names, tree)
        self._module = module
        self._lambdas = 0
        self._order_free: list[ast.expr] = []
        self._local = frozenset(self._given_to_local(tree))
        # Its decorators and defaults are not part of what is replayed.
        for statement in tree.body:
            self.visit(statement)

    def _add(self, node: Node, problem: str, name: ast.AST | None = None) -> None:
        shown = ast.unparse(node if name is None else name)
        self.found.append((node, f"{shown[:LONGEST]} {problem}"))

    # Calls.

    def visit_Call(self, node: ast.Call) -> None:
        """Check a call; a function given to `local` is free to do anything."""
        named = self._names.resolve(node.func)
        if _is_ours("local", named):
            free = node.args[:1] if node.args and isinstance(node.args[0], ast.Lambda) else []
            for each in (*node.args[len(free) :], *node.keywords):
                self.visit(each)
            return
        self._check_call(node, named)
        self.generic_visit(node)

    def _check_call(self, node: ast.Call, named: Named) -> None:
        rule = rule_for(named.names, node)
        if rule is not None and not _is_exception(named.value):
            self._add(node, f"{rule.problem}: {rule.cure}", node.func)
        if named.value is contextlib.suppress and any(map(self._catches_all, node.args)):
            self._add(node, SWALLOWS)
        if type(named.value) is types.FunctionType and named.value.__module__ == self._module:
            self.called += filter(None, [plain(named.value)])
        self._check_task(node, named.value)
        self._check_order(node, named)
        if isinstance(node.func, ast.Attribute):
            self._check_method(node, node.func)

    def _check_task(self, node: ast.Call, called: Any) -> None:
        if _is_a(Task, called) and not _is_awaitable_task(called):
            name = ast.unparse(node.func)
            self._add(
                node,
                f"is run here, and again at each replay: `await {name}.step(...)`, or "
                f"`{name}.function(...)` for a pure helper",
                node.func,
            )

    def _check_method(self, node: ast.Call, method: ast.Attribute) -> None:
        owner = self._names.resolve(method.value).value
        if method.attr == "run_in_executor":
            self._add(node, "is not durable: do it by `await local(fn, ...)`, or a step", method)
        if method.attr in MUTATORS and _is_a(MUTABLE, owner):
            self._add(node, SHARED, method)
        if method.attr == "pop" and self._sets.holds(method.value):
            self._add(node, UNORDERED, method.value)
        if method.attr == "step" and self._lambdas and _is_a(Task, owner):
            self._add(node, IN_LAMBDA, method)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Note that a call in it is not made where it stands."""
        self._lambdas += 1
        self.generic_visit(node)
        self._lambdas -= 1

    # What is asked for and dropped.

    def visit_Expr(self, node: ast.Expr) -> None:
        """Check a call whose result is not used."""
        if isinstance(node.value, ast.Call):
            self._check_dropped(node.value)
        self.generic_visit(node)

    def _check_dropped(self, call: ast.Call) -> None:
        named = self._names.resolve(call.func)
        if _is_ours("restart", named):
            self._add(call, NOT_RAISED, call.func)
        elif _is_ours("local", named) or self._is_awaitable(call.func, named.value):
            self._add(call, NOT_AWAITED, call.func)

    def _is_awaitable(self, function: ast.expr, called: Any) -> bool:
        if _is_a(Task, called):
            return _is_awaitable_task(called)
        if not isinstance(function, ast.Attribute):
            return False
        owner = self._names.resolve(function.value).value
        if function.attr == "receive":
            return _is_a(Signal, owner)
        return function.attr == "step" and self._is_task(function.value)

    def _is_task(self, node: ast.expr) -> bool:
        """Tell whether it is a task, with options or without."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return node.func.attr == "options" and self._is_task(node.func.value)
        return _is_a(Task, self._names.resolve(node).value)

    # Functions that `local` runs.

    def _given_to_local(self, tree: ast.AST) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_ours("local", self._names.resolve(node.func)):
                inner = (each for first in node.args[:1] for each in ast.walk(first))
                yield from (each.id for each in inner if isinstance(each, ast.Name))

    def visit_FunctionDef(self, node: Definition) -> None:
        """Check an inner function, unless it is one for `local`."""
        if node.name not in self._local:
            self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the name that `ast` calls

    # Order.

    def _check_order(self, node: ast.Call, named: Named) -> None:
        name = named.path.removeprefix("builtins.")
        if name in ORDER_FREE:
            self._order_free += node.args
        if name in ORDERED:
            for each in filter(self._sets.holds, node.args):
                self._add(each, UNORDERED)

    def _check_iterated(self, node: ast.expr) -> None:
        if self._sets.holds(node):
            self._add(node, UNORDERED)

    def visit_For(self, node: ast.For) -> None:
        """Check a loop over a set."""
        self._check_iterated(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        """Check a set that is unpacked."""
        if node not in self._order_free:
            self._check_iterated(node.value)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        """Check a comprehension over a set, unless its order is of no account."""
        for each in node.generators:
            if node not in self._order_free:
                self._check_iterated(each.iter)
        self.generic_visit(node)

    visit_GeneratorExp = visit_ListComp  # noqa: N815
    visit_DictComp = visit_ListComp  # noqa: N815

    # State that outlives the call.

    def visit_Global(self, node: ast.Global) -> None:
        """Report a variable of the module that is assigned."""
        self._add(node, SHARED)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        """Report a variable of an enclosing function that is assigned."""
        if not self._names.closed_over.keys().isdisjoint(node.names):
            self._add(node, SHARED)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Check an item that is assigned or deleted."""
        self._check_stored(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Check an attribute that is assigned or deleted."""
        self._check_stored(node)

    def _check_stored(self, node: ast.Subscript | ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load) and self._names.is_known(node.value):
            self._add(node, SHARED)
        self.generic_visit(node)

    # Cancellation.

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Check a handler that catches all and raises nothing."""
        catches = node.type is None or self._catches_all(node.type)
        if catches and not any(isinstance(each, ast.Raise) for each in ast.walk(node)):
            shown = "except" if node.type is None else f"except {ast.unparse(node.type)}"
            self.found.append((node, f"`{shown}` {SWALLOWS}"))
        self.generic_visit(node)

    def _catches_all(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Tuple):
            return any(map(self._catches_all, node.elts))
        return self._names.resolve(node).value is BaseException


def _is_ours(word: str, named: Named) -> bool:
    """Tell whether it is a word of `dispatchers.workflows`."""
    return any(
        name.startswith("dispatchers.workflows.") and name.endswith(f".{word}")
        for name in named.names
    )


def _is_awaitable_task(task: Any) -> bool:
    """Tell whether a plain call of a task is a step or a child."""
    return bool(task.is_async or task.is_workflow)


def _is_a(kind: type[Any] | tuple[type[Any], ...], value: object) -> bool:
    # By `type`, as a proxy runs code when it is asked for its class.
    return issubclass(type(value), kind)


def _is_exception(value: Any) -> bool:
    return _is_a(type, value) and issubclass(value, BaseException)
