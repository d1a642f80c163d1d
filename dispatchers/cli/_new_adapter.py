"""`dispatchers new-adapter`: a project for a backend of one's own."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import dispatchers
from dispatchers._config.backend_checks import RESERVED
from dispatchers._config.registry import names
from dispatchers._errors import ConfigurationError
from dispatchers._runtime.importing import is_importable

from ._arguments import add_command
from ._exit import Exit
from ._screen import Screen

__all__ = ["add"]

TEXT = """
Write a project for a backend of your own: package, entry point, worker, tests, README.

The project installs and type-checks, and `dispatchers list` shows it. Its tests inherit both
conformance suites, and each that fails names the methods that are to be written. NAME is the name
that the backend is configured by; the folder must not exist.
"""
NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
"""Names that a backend, a distribution and a class may have."""
PREFIX = re.compile(r"dispatchers(?:_|-)")
"""The beginning of every project's name, which a backend's own does not repeat."""
RULE = (
    "write lower-case letters and digits, a letter first, with single '_' or '-' between words, "
    "and not 'dispatchers' before it"
)
TEMPLATES = files("dispatchers.cli") / "adapter_project"
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "${package}/__init__.py": "dispatcher.py",
    "${package}/_worker.py": "worker.py",
    "${package}/py.typed": None,
    "tests/test_${module}.py": "test.py",
}
"""The files of a project, and their templates."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "new-adapter", run, TEXT)
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits, _ and -")
    parser.add_argument("--dir", metavar="DIR", help="the new folder; default: dispatchers-NAME")
    parser.add_argument(
        "--asyncio", action="store_true", help="for a client that is asyncio only: coroutines"
    )


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Write the project, and say how to go on."""
    _refuse(args.name)
    words = _words(args.name, asyncio=args.asyncio)
    folder = Path(args.dir or words["project"])
    for path in _write(folder, words):
        shown.line(str(path))
    shown.note(
        f"next: cd {shlex.quote(str(folder))} && python -m pip install -e '.[tests]' && pytest -x\n"
        "it fails with the methods that are to be written first"
    )
    return Exit.OK


def _refuse(name: str) -> None:
    """Refuse a name that the project cannot have, or that has an owner.

    Raises:
        ConfigurationError: It says why, and what to do.
    """
    if name in RESERVED:
        raise ConfigurationError(f"the name {name!r} is reserved: choose another one")
    if not _is_valid(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a new backend: {RULE}{_cure(name)}"
        )
    if owner := next(_owners(name), None):
        raise ConfigurationError(f"{name!r} is taken by {owner}: choose another name")


def _is_valid(name: str) -> bool:
    return bool(NAME.fullmatch(name)) and not PREFIX.match(name)


def _cure(name: str) -> str:
    """Return the nearest valid name, as the tail of a message."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    near = PREFIX.sub("", plain).lstrip("0123456789_")
    return f"; did you mean {near!r}?" if _is_valid(near) else ""


def _owners(name: str) -> Iterator[str]:
    """Yield what the names that follow from a backend's own would clash with."""
    package = f"dispatchers_{_module(name)}"
    # `my-queue` and `my_queue` are two backends, but one package.
    yield from (f"the backend {each!r}" for each in names() if _module(each) == _module(name))
    if is_importable(package):
        yield f"the package {package!r}"
    classes = [f"{_class(name)}{kind}" for kind in ("Dispatcher", "Options")]
    yield from (f"the class `dispatchers.{each}`" for each in classes if hasattr(dispatchers, each))


def _words(name: str, *, asyncio: bool) -> dict[str, str]:
    """Return what stands for the placeholders of the templates."""
    return {
        "name": name,
        "module": _module(name),
        "package": f"dispatchers_{_module(name)}",
        "project": f"dispatchers-{name.replace('_', '-')}",
        "extra": name.replace("_", "-"),
        "Class": _class(name),
        "Async": "Async" if asyncio else "",
        "a": "a" if asyncio else "",
        "define": "async def" if asyncio else "def",
        "close": "*, timeout: float" if asyncio else "timeout: float",
    }


def _module(name: str) -> str:
    return name.replace("-", "_")


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in re.split("[_-]", name))


def _write(folder: Path, words: dict[str, str]) -> Iterator[Path]:
    """Write the files into a folder that is not there yet.

    Raises:
        ConfigurationError: The folder exists, or cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        for name, template in FILES.items():
            path = folder / Template(name).substitute(words)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_filled(template, words), encoding="utf-8")
            yield path
    except FileExistsError:
        raise ConfigurationError(
            f"{str(folder)!r} exists, and nothing is overwritten: name another folder with --dir"
        ) from None
    except OSError as exc:
        raise ConfigurationError(f"cannot write {str(exc.filename)!r}: {exc.strerror}") from exc


def _filled(template: str | None, words: dict[str, str]) -> str:
    if template is None:
        return ""
    text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(words)
