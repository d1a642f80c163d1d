"""Arrows point one way: adapters and glue to the core's public names, the core to neither."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dispatchers

ROOT = Path(__file__).parents[2]
CORE = Path(dispatchers.__file__).parent
ROOMS = (
    "backends", "cli", "delivery", "forwarding", "frameworks", "held", "hooks", "http",
    "implementation", "moving", "native", "net", "outbox", "rabbitmq", "redis", "sqlite",
    "stores", "testing", "worker",
)  # fmt: skip
"""The public modules and packages beside `dispatchers` itself."""
TOOLS = ("dispatchers.cli", "dispatchers.demo", "dispatchers.testing")
"""Rooms that use the core, and that the core must not need."""


def imports_of(path: Path, package: str) -> Iterator[str]:
    """The dotted names that a module imports, relative ones made absolute.

    `from x import y` counts as `x.y`, for `y` may be a module.
    """
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def packages(folder: str) -> list[Path]:
    """The import packages in `adapters` or `contrib`."""
    return sorted(path for path in ROOT.glob(f"{folder}/*/dispatchers_*") if path.is_dir())


def modules(package: Path, root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(package.rglob("*.py")):
        yield path, ".".join(path.relative_to(root).parent.parts)


def is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def is_in(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


STANDS_ON = {"dispatchers_django_rq": {"dispatchers_rq"}}
"""Adapters that are another one with other settings, and use its public names."""
OUTSIDE = [*packages("adapters"), *packages("contrib")]


@pytest.mark.parametrize("package", OUTSIDE, ids=lambda path: path.name)
def test_outside_the_core_only_its_public_names_are_imported(package):
    """An outside author gets along with the same; otherwise a name is missing."""
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, own in modules(package, package.parent)
        for name in imports_of(path, own)
        if is_in(name, ("dispatchers",)) and not _is_public(name)
    }

    assert wrong == set()


def _is_public(name: str) -> bool:
    """A public name of `dispatchers`, or whatever is not private in one of its rooms."""
    _, _, rest = name.partition(".")
    first = rest.split(".")[0]
    return rest in ("", *dispatchers.__all__) or (first in ROOMS and not is_private(rest))


@pytest.mark.parametrize("package", OUTSIDE, ids=lambda path: path.name)
def test_adapters_and_glue_do_not_import_each_other(package):
    """Each of them can be taken away, but for what another one stands on: of that, public names."""
    others = {other.name for other in OUTSIDE} - {package.name}
    found = {
        name
        for path, own in modules(package, package.parent)
        for name in imports_of(path, own)
        if name.split(".")[0] in others
    }
    base = STANDS_ON.get(package.name, set())

    assert {name for name in found if name.split(".")[0] not in base or is_private(name)} == set()


def test_the_core_imports_neither_adapters_nor_glue():
    """It finds them by entry points, when they are asked for."""
    wrong = {
        f"{path.relative_to(CORE)}: {name}"
        for path, own in modules(CORE, CORE.parent)
        for name in imports_of(path, own)
        if name.startswith("dispatchers_")
    }

    assert wrong == set()


def test_the_core_imports_none_of_its_tools():
    """Command line, demo and testing kit stand above it."""
    wrong = {
        f"{path.relative_to(CORE)}: {name}"
        for path, own in modules(CORE, CORE.parent)
        if not is_in(own, TOOLS) and path.name != "__main__.py"
        for name in imports_of(path, own)
        if is_in(name, TOOLS)
    }

    assert wrong == set()


def test_the_tools_do_not_import_the_testing_kit():
    """It is installed with pytest, which a production machine lacks."""
    wrong = {
        f"{path.relative_to(CORE)}: {name}"
        for path, own in modules(CORE, CORE.parent)
        if is_in(own, ("dispatchers.cli", "dispatchers.demo"))
        for name in imports_of(path, own)
        if is_in(name, ("dispatchers.testing",))
    }

    assert wrong == set()


def test_the_adapters_folders_are_no_packages():
    """`adapters/celery.py` would shadow the real library."""
    found = [
        path.name
        for folder in ("adapters", "contrib")
        for path in (ROOT / folder).glob("*")
        if path.suffix == ".py"
    ]

    assert found == []


def test_every_folder_outside_has_its_own_word():
    """Folder, import name and readme agree."""
    for package in OUTSIDE:
        assert package.name == f"dispatchers_{package.parent.name}"
        assert (package / "__init__.py").is_file()


def test_the_check_sees_what_it_should(tmp_path):
    """Each way to write an import is understood."""
    path = tmp_path / "module.py"
    path.write_text(
        "import a.b\nimport c as d\nfrom e import f, g\nfrom . import h\nfrom .i import j\n"
        "from ..k import l\ndef later():\n    from m.n import o\n"
    )

    assert set(imports_of(path, "x.y")) == {
        *("a.b", "c", "e.f", "e.g"),
        *("x.y.h", "x.y.i.j", "x.k.l", "m.n.o"),
    }
    assert not _is_public("dispatchers._tasks.task.Task")
    assert not _is_public("dispatchers._worker.runner")
    assert not _is_public("dispatchers.Tsak")
    assert not _is_public("dispatchers.backends._pool.Pool")
    assert not _is_public("dispatchers.cli._main.main")
    assert _is_public("dispatchers")
    assert _is_public("dispatchers.task")
    assert _is_public("dispatchers.backends.inline.InlineDispatcher")
    assert _is_public("dispatchers.hooks.before_dispatch")
