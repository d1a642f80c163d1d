"""The order of the core's rooms: each imports only those before it, and no files import in circles.

Imports that are late or for type checkers only are counted as well: they are dependencies too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispatchers

CORE = Path(dispatchers.__file__).parent
ORDER = [
    {"_errors"},
    {"_runtime", "_payload"},
    {"_models"},
    {"_dispatch", "rabbitmq", "net", "implementation"},
    {"redis"},
    {"_config", "held", "forwarding"},
    {"_stores", "_tasks", "native"},
    {"_journal"},
    {"_worker", "stores", "frameworks", "journals", "moving"},
    {"workflows"},
    {"hooks", "delivery", "worker", "http", "dispatchers"},
    {"sqlite"},
    {"backends"},
    {"outbox"},
    {"cli"},
    {"demo", "testing", "__main__"},
]
"""Floors from the ground up; `dispatchers` is the package's own `__init__`."""
FLOOR = {room: number for number, rooms in enumerate(ORDER) for room in rooms}


def modules(core: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted(core.rglob("*.py")):
        parts = path.relative_to(core.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, name: str, known: set[str]) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it the import stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield from (
                    found for found in (inner if inner in known else module,) if found in known
                )


def graph(core: Path) -> dict[str, set[str]]:
    found = modules(core)
    known = set(found)
    return {name: set(imported(path, name, known)) - {name} for name, path in found.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def arrows_up(imports: dict[str, set[str]]) -> list[str]:
    """Imports that lead to a room of the same floor or above."""
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if room(module) != room(other) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other: what is left when those that import nothing left go."""
    left = {module: set(others) for module, others in imports.items()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    return [sorted(left)] if left else []


def test_every_room_has_a_floor():
    """A new room is put where it belongs."""
    assert {room(module) for module in modules(CORE)} <= FLOOR.keys()


def test_each_room_imports_only_those_before_it():
    """An import that leads upwards makes two rooms one."""
    assert arrows_up(graph(CORE)) == []


def test_no_files_import_each_other():
    """What imports in a circle can be understood, and loaded, only together."""
    assert circles(graph(CORE)) == []


@pytest.mark.parametrize(
    ("line", "up", "round_"),
    [
        ("from dispatchers._models import base", 1, 1),
        ("from .._models.base import Model", 1, 1),
        ("if TYPE_CHECKING:\n    import dispatchers._models.base", 1, 1),
        ("def late():\n    from dispatchers._models.base import Model", 1, 1),
        ("from dispatchers._errors import ErrorCategory", 0, 0),
        ("from . import other", 0, 0),
    ],
)
def test_the_check_sees_what_it_should(tmp_path, line, up, round_):
    """Each way to write an import is understood."""
    core = tmp_path / "dispatchers"
    for name, text in {
        "_errors.py": "",
        "_runtime/log.py": line,
        "_runtime/other.py": "",
        "_models/base.py": "from dispatchers._runtime import log",
    }.items():
        path = core / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in (core, core / "_runtime", core / "_models"):
        (folder / "__init__.py").write_text("")

    imports = graph(core)

    assert len(arrows_up(imports)) == up
    assert len(circles(imports)) == round_


LISTLESS = {"_errors", "_payload", "_models", "_dispatch", "_tasks"}


def test_private_modules_list_no_names():
    """`__all__` says what users may import; in a private module it would only go stale."""
    listed = [
        name
        for name, path in modules(CORE).items()
        if room(name) in LISTLESS and "\n__all__ = " in path.read_text()
    ]

    assert listed == []
