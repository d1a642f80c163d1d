"""Methods that are still to be written."""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import FunctionType

__all__ = ["assert_written"]


def assert_written(*classes: type) -> None:
    """Fail the case while a method of a class does nothing but raise `NotImplementedError`.

    Args:
        classes: Classes of an adapter. Methods that they inherit do not count.

    Raises:
        pytest.fail.Exception: Methods are to be written; it names them all.
    """
    # Late: the kit can also be used without pytest.
    import pytest

    if found := [name for cls in classes for name in _unwritten(cls)]:
        pytest.fail(f"write {', '.join(found)}", pytrace=False)


def _unwritten(cls: type) -> list[str]:
    methods = filter(inspect.isfunction, vars(cls).values())
    return [each.__qualname__ for each in methods if _only_raises(each)]


def _only_raises(method: FunctionType) -> bool:
    if "NotImplementedError" not in method.__code__.co_names:
        return False
    [function] = ast.parse(textwrap.dedent(inspect.getsource(method))).body
    match getattr(function, "body", ()):
        case [ast.Raise()] | [ast.Expr(value=ast.Constant()), ast.Raise()]:
            return True
        case _:
            return False
