"""Finding libraries, naming what they lack, and the command that cures it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, cast

from dispatchers._runtime.log import kept_enabled

__all__ = ["cause", "import_object", "imported", "install", "is_importable", "missing_names"]


def prepare_late_imports() -> None:
    """Make libraries importable for threads that outlive the main one.

    Many import `concurrent.futures.thread`, which registers an exit function when it is imported,
    and may not once the main thread has ended. It costs a millisecond, so it is called where a
    program begins to use us, not where we are imported.
    """
    importlib.import_module("concurrent.futures.thread")


def is_importable(module: str) -> bool:
    """Tell whether `import module` would find something; never raises.

    Imports at most its parent packages; one of them that fails leaves nothing to find.
    """
    if module in sys.modules:
        return cast("object", sys.modules[module]) is not None  # None there forbids the import
    try:
        return importlib.util.find_spec(module) is not None
    # `find_spec` imports the parent packages, which may raise anything.
    except (Exception, SystemExit):  # noqa: BLE001 - C12: the parent package is another's code
        return False


def imported(module: str) -> ModuleType:
    """The module of that name, which is another's code.

    Raises:
        ImportError: It ended the process instead; one module may not take all others with it.

        Exception: Whatever else importing it raises.
    """
    try:
        with kept_enabled():
            return importlib.import_module(module)
    except SystemExit as exc:
        raise ImportError(f"module {module!r} called sys.exit() when it was imported") from exc


def import_object(reference: str) -> Any:
    """Return what `module:attribute` names; the attribute may be dotted.

    Raises:
        ValueError: The reference is not of this form.

        AttributeError: The module has no such attribute.

        Exception: Whatever importing the module raises.
    """
    module, colon, attribute = reference.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"reference {reference!r} is not of the form 'module:attribute'")
    found: object = imported(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


def missing_names(found: object, names: Iterable[str]) -> list[str]:
    """Those of `names`, dotted ones included, that `found` does not have."""
    return [name for name in names if not _has(found, name)]


def _has(found: object, name: str) -> bool:
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            return False
    return True


def cause(exc: BaseException) -> str:
    """The exception's type and words, for messages about imports; never raises."""
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - a broken __str__ must not raise
        text = ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def install(*requirements: str) -> str:
    """The command that installs `requirements`."""
    return f"pip install {' '.join(f'{each!r}' for each in requirements)}"
