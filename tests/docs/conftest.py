"""Runs a page of the documentation: each block in its order, in a folder of the page's own.

- `python`: run with the names of the page's earlier blocks. `await` may stand anywhere. A comment
  behind a `print`, or right below it, is what it prints.
- A block whose first line is a comment with a file's name is that file; a Python one is imported.
- `toml`: also parsed, and taken by `dispatchers.configure` for each of its targets.
- `console`: each line behind `$` is run; the lines below are looked for in its output, in order,
  `...` for anything. The exit code is 0, unless `$ echo $?` asks for it. `ID` in a command is the
  newest dead letter's.
- `json` and `ini` are parsed.
- Everything else is not run, and stands in a list in test_pages.py.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

import dispatchers
from dispatchers._config.api import close_all, reload, state
from dispatchers._config.layers import Layer
from dispatchers._config.registry import table

ROOT = Path(__file__).resolve().parents[2]
FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")
PRINTS = re.compile(r"\s*print\(.*\)(?:\s*# (?P<shown>.+))?")
BELOW = re.compile(r"\s*# (?P<shown>.+)")
SECONDS = 60
"""Longer than any command takes, on a machine that is very busy."""


class Page:
    """One page, run from top to bottom.

    Args:
        path: The page.

        folder: Where its files are written, and its commands are run.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.modules: list[str] = []
        self.document = Document.parse(str(path), self.blocks)

    def blocks(self, document: Document) -> Iterator[Region]:
        """Every fenced block, with what runs it."""
        for region in FencedCodeBlockLexer(language=r"[^\n]*")(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = self.runner(region.lexemes["language"])
            yield region

    def runner(self, language: str) -> Callable[[Example], str | None] | None:
        """What runs a block of a language; nothing runs some."""
        runners: dict[str, Callable[[str], str | None]] = {
            "python": self.python,
            "toml": self.toml,
            "console": self.console,
            "json": parse_json,
            "ini": parse_ini,
        }
        if (run := runners.get(language)) is None:
            return None
        return lambda example: run(str(example.parsed))

    @property
    def left_out(self) -> list[str]:
        """The blocks that are not run: their language and first line."""
        return [
            f"{region.lexemes['language']}: {str(region.parsed).splitlines()[0]}"
            for _, region in self.document.regions
            if region.evaluator is None
        ]

    def run(self) -> None:
        """Run every block."""
        namespace = self.document.namespace
        namespace["__name__"] = f"page_{self.path.stem.replace('-', '_')}"
        with placed(self.folder):
            for example in self.document:
                if example.region.evaluator is not None:
                    example.evaluate()

    # The languages.

    def python(self, source: str) -> str | None:
        """Run Python code, or write the file that it is and import it."""
        if file := FILE.match(source):
            self.write(file[1], source)
            self.imported(file[1])
            return None
        wanted = said_to_print(source)
        printed = self.executed(source)
        return unlike(wanted, printed) if wanted else None

    def executed(self, source: str) -> list[str]:
        """What the code prints."""
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(source, str(self.path), "exec", flags, dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            result = eval(compiled, self.document.namespace)
            if inspect.iscoroutine(result):
                asyncio.run(result)
        return out.getvalue().splitlines()

    def write(self, name: str, text: str) -> None:
        """Write a file of the page."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        reload()

    def imported(self, name: str) -> None:
        """Import a module of the page anew; pytest and a page's Django import their own."""
        path = Path(name)
        if path.name.startswith(("test_", "conftest")) or self.path.stem == "django-tasks":
            return
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        importlib.import_module(module)
        self.modules.append(module)

    def toml(self, source: str) -> None:
        """Validate settings for each target they have."""
        if file := FILE.match(source):
            self.write(file[1], source)
        settings = tomllib.loads(source)
        if "project" in settings or "tool" in settings:
            settings = settings.get("tool", {}).get("dispatchers", {})
        with nothing_else_configured(self.folder):
            for target in settings.get("targets", [None]):
                dispatchers.configure(settings, target=target)

    def console(self, source: str) -> str | None:
        """Run the commands of a session."""
        code = 0
        for command, expected in session(source):
            if command == "echo $?":
                if [str(code)] != expected:
                    return f"the exit code was {code}"
                code = 0
                continue
            if code:
                return f"the exit code was {code}"
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                os.environ[name] = shlex.split(value)[0]
                reload()
                continue
            code, printed = self.shell(self.filled(command))
            if problem := unlike(expected, printed):
                return f"$ {command}\n{problem}"
        return f"the exit code was {code}" if code else None

    def filled(self, command: str) -> str:
        """A command with the newest dead letter's id in its place."""
        if not re.search(r"\bID\b", command):
            return command
        _, listed = self.shell("dispatchers dead list --json")
        return re.sub(r"\bID\b", json.loads("\n".join(listed))[0]["id"], command)

    def shell(self, command: str) -> tuple[int, list[str]]:
        """The exit code and the output of a command."""
        close_all()
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env={**os.environ, **surroundings()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout.splitlines()


def said_to_print(source: str) -> list[str]:
    """What comments behind `print`, or right below it, say that it prints."""
    found: list[str] = []
    after_print = False
    for line in source.splitlines():
        match = PRINTS.fullmatch(line)
        below = BELOW.fullmatch(line) if after_print else None
        after_print = match is not None or below is not None
        found += [each["shown"] for each in (match, below) if each and each["shown"]]
    return found


def parse_json(source: str) -> None:
    """It is JSON."""
    json.loads(source)


def parse_ini(source: str) -> None:
    """It is what systemd and its like read."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(source)


def session(source: str) -> list[tuple[str, list[str]]]:
    """The commands of a session and what each shows."""
    found: list[tuple[str, list[str]]] = []
    for line in source.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ ").split("  #")[0].strip(), []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def unlike(wanted: list[str], shown: list[str]) -> str | None:
    """What is missing of the lines that are wanted, in their order, whatever is between them."""
    rest = iter([flat(line) for line in shown])
    for line in wanted:
        pattern = re.compile(re.escape(flat(line)).replace(r"\.\.\.", ".*"))
        if not any(pattern.fullmatch(each) for each in rest):
            return "\n".join([f"missing: {line}", "shown:", *shown])
    return None


def flat(line: str) -> str:
    """A line without the spaces that align it."""
    return " ".join(line.split())


def surroundings() -> dict[str, str]:
    """Variables with which a command finds this Python and its programs, and writes plain text."""
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, str(Path(sys.executable).parent), os.environ["PATH"]])
    plain = {"NO_COLOR": "1", "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    # The plugins of the other libraries installed here take seconds to import.
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "dispatchers_pytest"}
    return {"PATH": path, **plain, **plugins}


def restore(explicit: Layer) -> None:
    """Read all sources again, with what code configured before; nothing is validated."""
    state.change(lambda view: view.changed(view.stack, explicit, anew=True))


def is_below(module: ModuleType, folder: Path) -> bool:
    """Whether a module, or a package without a file, lies in a folder."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(str(place).startswith(str(folder)) for place in places if place)


@contextlib.contextmanager
def placed(folder: Path) -> Iterator[None]:
    """Work in a folder, and import from it; variables are afterwards what they were."""
    before = dict(os.environ)
    known = set(sys.modules)
    registered = dict(table.code)
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir(folder):
            reload()
            yield
    finally:
        close_all()
        os.environ.clear()
        os.environ.update(before)
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if is_below(sys.modules[name], folder):
                del sys.modules[name]
        table.code = registered
        table.changed()
        restore(Layer({}))


@contextlib.contextmanager
def nothing_else_configured(folder: Path) -> Iterator[None]:
    """Hide the page's own file and variables for a while."""
    empty = folder / "nothing.toml"
    empty.touch()
    before = dict(os.environ)
    explicit = state.view.explicit
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        del os.environ[name]
    os.environ["DISPATCHERS_CONFIG"] = str(empty)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        empty.unlink()
        restore(explicit)


@pytest.fixture
def page(tmp_path: Path) -> Callable[[str], Page]:
    """Makes a page of its path, ready to run."""

    def ready(name: str) -> Page:
        if name == "docs/django-tasks.md" and not importlib.util.find_spec("django.tasks"):
            pytest.importorskip("django_tasks", reason='needs "dispatchers[django-tasks]"')
        return Page(ROOT / name, tmp_path)

    return ready


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    """The script that writes tables into the documentation."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pages() -> list[str]:
    """Every page, by its path."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def pytest_generate_tests(metafunc: Any) -> None:
    """Tests that take `name` are run for every page."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", pages())
