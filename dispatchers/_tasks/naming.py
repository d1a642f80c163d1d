"""Names of tasks, and checks that a worker can find their functions."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dispatchers._models.fields import TaskName
from dispatchers._payload.errors import DeclarationError

_name: TypeAdapter[str] = TypeAdapter(TaskName, config=ConfigDict(defer_build=True))


def registered_name(function: Callable[..., Any], name: str | None) -> str:
    """Return the given name, else module and function.

    Raises:
        DeclarationError: The name has spaces, quotes or control characters, or is too long.
    """
    wanted = origin_of(function) if name is None else name
    try:
        return _name.validate_python(wanted, strict=True)
    except ValidationError:
        raise DeclarationError(
            f"{wanted!r} is not a valid task name: 1 to 255 characters without spaces, quotes "
            "and backslashes"
        ) from None


def origin_of(function: Callable[..., Any]) -> str:
    """`module.function`, with the name that a script has when it is imported."""
    return f"{_module_of(function)}.{getattr(function, '__qualname__', repr(function))}"


class Definition:
    """Place of a function's definition, and the loading of its module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        inner: Any = inspect.unwrap(function)
        code = getattr(inner, "__code__", None)
        self._file: str | None = getattr(code, "co_filename", None)
        self._line: int = getattr(code, "co_firstlineno", 0)
        # A reload gives the module another specification, and a notebook's cells have none.
        self._loading = getattr(inner, "__globals__", {}).get("__spec__")

    def beside(self, other: Definition) -> bool:
        """Tell whether one loading of one module defines both."""
        return (
            self._loading is not None
            and self._loading is other._loading
            and self._file == other._file
            and self._line != other._line
        )

    def __str__(self) -> str:
        return f"{self._file}:{self._line}"


def _module_of(function: Callable[..., Any]) -> str:
    module: str = getattr(function, "__module__", None) or "unknown"
    # A script's tasks must have the same name in the script and in the worker that imports it.
    return _main_module() if module in ("__main__", "__mp_main__") else module


def _main_module() -> str:
    """Return the name a worker imports the script `__main__` by."""
    main = sys.modules.get("__main__")
    # Set by `python -m package`; a plain script has none.
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def refuse_unfindable(function: Callable[..., Any], name: str | None) -> None:
    """Refuse what cannot be a task.

    Raises:
        DeclarationError: It is not a function, or one that a worker could not find again.
    """
    if inspect.isclass(function) or not callable(function):
        raise DeclarationError(f"a task is a function, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"{origin_of(function)} is a generator: nothing would iterate over it in a worker; "
            "return nothing, or dispatch a task for each item"
        )
    if inspect.ismethod(function):
        raise DeclarationError(
            f"{origin_of(function)} is a bound method: its object does not travel; "
            "make a task of a function that looks the object up"
        )
    if name is None:
        _refuse_local(function)


def _refuse_local(function: Callable[..., Any]) -> None:
    qualname = getattr(function, "__qualname__", "")
    if "<lambda>" in qualname or not qualname:
        raise DeclarationError(
            "a lambda has no name that a worker could find: write a function, or give a name "
            "with @task(name=...) where importing the module defines it"
        )
    if "<locals>" in qualname:
        raise DeclarationError(
            f"{origin_of(function)} is defined inside a function, where a worker could not find "
            "it: move it to the module's top level, or give it a name with @task(name=...) if "
            "importing the module defines it"
        )
