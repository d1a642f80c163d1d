"""`new-adapter`: a project that is valid at once, and whole with its methods."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from dispatchers._config.backend_checks import class_problems
from dispatchers._runtime.importing import import_object
from dispatchers.testing import assert_written

from .conftest import Shop

FOLDER = '''
"""Files in the folders `waiting`, `held` and `dead`; their names say what a worker has to know."""

import time
import uuid
from pathlib import Path


def folder(url: str, name: str) -> Path:
    path = Path(url, name)
    path.mkdir(parents=True, exist_ok=True)
    return path


def name(id_: str, due: float, attempt: int, deliveries: int) -> str:
    return f"{due:020.6f} {uuid.uuid4().hex} {id_} {attempt} {deliveries}"


def put(url: str, id_: str, body: bytes, due: float) -> None:
    file = folder(url, "half") / name(id_, due, 1, 0)
    file.write_bytes(body)
    file.rename(folder(url, "waiting") / file.name)


def take(url: str) -> Path | None:
    for file in sorted(folder(url, "waiting").iterdir()):
        due, _, id_, attempt, deliveries = file.name.split(" ")
        if float(due) > time.time():
            return None
        held = name(id_, float(due), int(attempt), int(deliveries) + 1)
        try:
            return file.rename(folder(url, "held") / held)
        except FileNotFoundError:
            continue  # another one was faster
    return None


def move(url: str, handle: str, to: str, new: str) -> None:
    (folder(url, "held") / handle).rename(folder(url, to) / new)
'''
SEND = """
from ._folder import put
put(self.options.url, request.id, body, (request.due or request.created_at).timestamp())
return Sent(request.id)
"""
PROBE = """
from ._folder import folder
folder(self.options.url, "waiting")
"""
CALLED = """
from time import time
from ._folder import folder, move, name, take
url = self._client.options.url
"""
"""The beginning of each method of the worker."""
WORKER = {
    "take": """
file = take(url)
if file is None:
    return None
_, _, id_, attempt, deliveries = file.name.split(" ")
return Work(file.name, file.read_bytes(), int(attempt), int(deliveries), id_)
""",
    "renew": 'return (folder(url, "held") / work.handle).exists()',
    "complete": '(folder(url, "held") / work.handle).unlink()',
    "retry": 'move(url, work.handle, "waiting", name(work.id, time() + after, attempt, 0))',
    "give_back": """
again = name(work.id, time() + after, work.attempt, deliveries)
move(url, work.handle, "waiting", again)
""",
    "dead_letter": 'move(url, work.handle, "dead", work.handle)',
}
FILES = """
from dispatchers_spool._folder import folder
files = [file for name in {names} for file in folder(self.url, name).iterdir()]
return [file.read_bytes() for file in files]
"""
CRASH = """
from dispatchers_spool._folder import move, take
file = take(self.url)
assert file is not None
move(self.url, file.name, "waiting", file.name)
"""
WITHOUT = '{"network": "files, no sockets", "stall": "a rename does not wait"}'
HARNESS = {
    "received": FILES.format(names=("waiting", "held")),
    "dead": FILES.format(names=("dead",)),
    "crash": CRASH,
}
UNWRITTEN = ["take", "renew", "complete", "retry", "give_back", "dead_letter"]


def fill(path: Path, bodies: Mapping[str, str]) -> None:
    """Write the bodies of methods, by name, in place of those that there are."""
    lines = path.read_text().splitlines()
    methods = {
        node.name: node.body
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    # From the last to the first, so that the lines of the others stay where they are.
    for name in sorted(bodies, key=lambda name: -methods[name][0].lineno):
        first, last = methods[name][0].lineno - 1, methods[name][-1].end_lineno
        lines[first:last] = [f"        {line}" for line in bodies[name].strip().splitlines()]
    path.write_text("\n".join(lines))


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment that sees what is installed here, and its Python.

    One for each test: the backend that one installs there would be taken for the next.
    """
    pytest.importorskip("pip", reason="pip is not installed here")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    # As sites: editable installations among them are found by files of theirs.
    here = [path for path in sys.path if path.endswith("-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in here]
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "here.pth").write_text("\n".join(lines))
    return folder / "bin" / "python"


def called(python: Path | str, *arguments: str, at: Path, code: int = 0) -> str:
    """What a program prints."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("DISPATCHERS", "PYTEST"))}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=at, env=variables, capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


LONG = 500
"""Seconds that a run of the suites may take on a busy machine."""
PIP = ("-m", "pip", "--disable-pip-version-check", "--python")
OFFLINE = ("install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-e", ".")
TYPES = ("-m", "mypy", "--cache-dir=../mypy")
TESTS = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:schemathesis",
    "-p",
    "no:asyncio",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flags", [(), ("--asyncio",)], ids=["sync", "asyncio"])
def test_its_tests_pass_once_the_methods_are_written(environment, tmp_path, flags):
    """In a fresh environment it installs, is listed, says what is to be written, and passes."""
    prefix = "_a" if flags else "_"
    project, package = tmp_path / "spool", tmp_path / "spool" / "dispatchers_spool"
    called(
        environment,
        "-m",
        "dispatchers",
        "new-adapter",
        "spool",
        "--dir",
        "spool",
        *flags,
        at=tmp_path,
    )
    called(sys.executable, *PIP, str(environment), *OFFLINE, at=project)

    found = json.loads(called(environment, "-m", "dispatchers", "list", "--json", at=tmp_path))
    [spool] = [each for each in found if each["name"] == "spool"]
    assert (spool["state"], spool["owner"]) == ("installed", "dispatchers-spool 0.1.0")
    assert spool["extra"] == "dispatchers-spool[spool]"
    called(sys.executable, *TYPES, at=project)
    said = called(environment, *TESTS, at=project, code=1)
    assert "passed" not in said
    assert said.count(f"write SpoolDispatcher.{prefix}send") > 100

    dispatcher = {"send": SEND, "probe": PROBE, "close": "return 0"}
    fill(package / "__init__.py", {f"{prefix}{name}": body for name, body in dispatcher.items()})
    said = called(environment, *TESTS, "-x", "-k", "SpoolWorker", at=project, code=1)
    missing = ", ".join(f"SpoolWorker.{prefix}{name}" for name in UNWRITTEN)
    assert f"write {missing}\n" in said

    fill(
        package / "_worker.py",
        {f"{prefix}{n}": CALLED + body.strip() for n, body in WORKER.items()},
    )
    (package / "_folder.py").write_text(FOLDER)
    tests = project / "tests" / "test_spool.py"
    fill(tests, HARNESS)
    tests.write_text(tests.read_text().replace("without = {}", f"without = {WITHOUT}"))
    called(sys.executable, *TYPES, at=project)
    said = called(environment, *TESTS, at=project)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > 100
    assert "failed" not in said


@pytest.mark.parametrize(("name", "flags"), [("acme-line", ()), ("acme_line2", ("--asyncio",))])
def test_its_class_is_a_whole_backend(shop: Shop, name, flags, monkeypatch):
    """The dispatcher is one that the registry takes, before a line of it is written."""
    assert shop("new-adapter", name, "--dir", "project", *flags).code == 0
    monkeypatch.syspath_prepend(shop.folder / "project")

    cls_name = "AcmeLine" + name[9:]
    cls = import_object(f"dispatchers_{name.replace('-', '_')}:{cls_name}Dispatcher")

    assert class_problems(cls, name) == []
    assert import_object(cls.worker).__name__ == f"{cls_name}Worker"


def test_it_says_what_it_wrote(shop: Shop):
    """Every file is a line of the result; how to go on stands beside it."""
    ran = shop("new-adapter", "spool")

    assert ran.code == 0
    assert sorted(ran.out.split()) == sorted(
        str(path.relative_to(shop.folder))
        for path in (shop.folder / "dispatchers-spool").rglob("*")
        if path.is_file()
    )
    assert "cd dispatchers-spool" in ran.err
    assert "$" not in "".join(Path(line).read_text() for line in ran.out.split())


def test_the_next_command_can_be_pasted(shop: Shop):
    """A folder with a blank in its name is quoted."""
    ran = shop("new-adapter", "spool", "--dir", "my spool")

    assert "cd 'my spool' && " in ran.err


def test_its_readme_has_the_headings_of_the_others(shop: Shop):
    """Each adapter's README has the same five headings."""
    shop("new-adapter", "spool", "--dir", "spool")

    headings = re.findall(
        r"^## (.+)$", (shop.folder / "spool" / "README.md").read_text(), re.MULTILINE
    )

    assert headings == ["Install", "Wire it up", "Options", "What can fail", "Limits"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Queue", "did you mean 'my_queue'?"),
        ("9lives", "did you mean 'lives'?"),
        ("dispatchers-spool", "did you mean 'spool'?"),
        ("spool_", "did you mean 'spool'?"),
        ("", "write lower-case letters"),
        ("../spool", "did you mean 'spool'?"),
        ("auto", "'auto' is reserved"),
        ("memory", "'memory' is taken by the backend 'memory'"),
        ("cloud-tasks", "'cloud-tasks' is taken by the backend 'cloud_tasks'"),
        ("django", "'django' is taken by the package 'dispatchers_django'"),
        ("base", "'base' is taken by the class `dispatchers.BaseDispatcher`"),
    ],
)
def test_a_name_that_cannot_be_is_refused(shop: Shop, name, said):
    """The refusal names the cure, and nothing is written."""
    ran = shop("new-adapter", name, "--dir", "made")

    assert ran.code == 2
    assert said in ran.err
    assert not (shop.folder / "made").exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_nothing_is_overwritten(shop: Shop, make: Callable[[Path], None]):
    """What is there already stays as it is."""
    make(shop.folder / "dispatchers-spool")

    ran = shop("new-adapter", "spool")

    assert ran.code == 2
    assert "'dispatchers-spool' exists" in ran.err
    assert "--dir" in ran.err
    assert not list((shop.folder / "dispatchers-spool").glob("*"))


def test_a_folder_that_cannot_be_made_is_told(shop: Shop):
    """A path through a file is an error in words."""
    ran = shop("new-adapter", "spool", "--dir", "cli_shop.py/spool")

    assert ran.code == 2
    assert "cannot write 'cli_shop.py/spool'" in ran.err


class Half:
    def written(self) -> str:
        return "written"

    def partly(self, number: int) -> int:
        if number:
            return number
        raise NotImplementedError("a number")

    def unwritten(self) -> NoReturn:
        """Say something."""
        raise NotImplementedError("write Half.unwritten")

    async def awaited(self) -> NoReturn:
        raise NotImplementedError


def test_what_is_to_be_written_is_named():
    """Methods that do nothing but raise are told by name, all at once; others are not."""
    with pytest.raises(pytest.fail.Exception) as caught:
        assert_written(Path, Half)

    assert str(caught.value) == "write Half.unwritten, Half.awaited"


def test_what_is_written_passes():
    """Classes that have all their methods are no failure."""
    assert_written(Path, Shop)
