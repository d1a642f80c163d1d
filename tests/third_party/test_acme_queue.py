"""A distribution by somebody else is built, installed and found, and keeps the contract."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "acme_queue"

USE = """
import sys
from dispatchers import WorkerOptions, configure, get_dispatcher, task

@task(name="acme_test.note")
def note(path: str) -> None:
    open(path, "w").write("ran")

acme = {"backend": "acme", "path": sys.argv[1]}
configure({"targets": {"shop": {"default": acme}}}, target="shop")
print(note.dispatch(sys.argv[2]).raise_for_error().status)
get_dispatcher()._worker(WorkerOptions(drain=True)).run()
print(open(sys.argv[2]).read())
"""

FLOWS = """
import asyncio, os, signal
from pathlib import Path
from dispatchers import task
from dispatchers.workflows import local, workflow

@task(name="acme_test.double")
def double(number: int) -> int:
    return 2 * number

def rate() -> int:
    if not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 8

@workflow(name="acme_test.flow")
async def flow() -> list[int]:
    first = await double.step(1)
    both = await asyncio.gather(double.step(2), double.step(3))
    await asyncio.sleep(0.3)
    return [first, *both, await local(rate)]
"""
FLOW_TOML = """
target = "shop"
tasks = ["acme_flows"]
workflows = "sqlite:journal.sqlite3"
[targets.shop.default]
backend = "acme"
path = "spool"
lease = 1.5
"""
AWAITED = "from acme_flows import flow; print(flow.execution('1').result(timeout=100))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the distribution was installed into, by way of its wheel."""
    pytest.importorskip("pip", reason="pip is not installed here")
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(SOURCE, folder / "source")
    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    plain = ("--no-deps", "--no-index")
    build = ("wheel", *plain, "--no-build-isolation", "-w", "wheels", "./source")
    _python(*pip, *build, at=folder)
    wheel = next((folder / "wheels").iterdir())
    _python(*pip, "install", *plain, "--target", "site", str(wheel), at=folder)
    return folder / "site"


def _python(*arguments: str, at: Path, path: Path | None = None) -> str:
    """What a fresh interpreter prints; fails with what it complains of."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHERS_")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments] if path else [sys.executable, *arguments],
        cwd=at,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_its_entry_point(installed: Path) -> None:
    """What was installed is what an author ships: a package, metadata, and no tests."""
    points = next(installed.glob("acme_queue-*.dist-info")) / "entry_points.txt"

    assert (installed / "acme_queue" / "__init__.py").exists()
    assert not (installed / "tests").exists()
    assert "acme = acme_queue:AcmeDispatcher" in points.read_text()


def test_it_is_listed_with_its_owner(installed: Path, tmp_path: Path) -> None:
    """The registry finds it by its entry point and says whose it is."""
    code = (
        "from dispatchers._config.registry import backends\n"
        "[acme] = [each for each in backends() if each.name == 'acme']\n"
        "print(acme.owner, acme.state, acme.cls.capabilities.durable)"
    )

    printed = _python("-c", code, at=tmp_path, path=installed)

    assert printed.strip() == "acme-queue 1.2.0 installed True"


def test_it_loads_by_its_name(installed: Path, tmp_path: Path) -> None:
    """`load_backend` gives the class, and imports it only then."""
    code = (
        "import sys\n"
        "from dispatchers._config.registry import load_backend\n"
        "assert 'acme_queue' not in sys.modules\n"
        "print(load_backend('acme').__qualname__)"
    )

    assert _python("-c", code, at=tmp_path, path=installed).strip() == "AcmeDispatcher"


def test_it_is_configured_and_works(installed: Path, tmp_path: Path) -> None:
    """One line of configuration, and work is dispatched and run."""
    spool, note = tmp_path / "spool", tmp_path / "note"

    printed = _python("-c", USE, str(spool), str(note), at=tmp_path, path=installed)

    assert printed.split() == ["accepted", "ran"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_workflows_run_on_it(installed: Path, tmp_path: Path) -> None:
    """D17: a backend that passes the suite carries workflows, also when a worker is killed."""
    (tmp_path / "acme_flows.py").write_text(FLOWS)
    (tmp_path / "dispatchers.toml").write_text(FLOW_TOML)
    start = ("-m", "dispatchers", "dispatch", "acme_test.flow", "--key", "1")
    command = [sys.executable, "-W", "error", "-m", "dispatchers", "worker"]
    environment = {**os.environ, "PYTHONPATH": f"{installed}:{tmp_path}"}

    assert "accepted" in _python(*start, at=tmp_path, path=installed)
    first = subprocess.run(command, cwd=tmp_path, env=environment, timeout=100, check=False)
    second = subprocess.Popen(command, cwd=tmp_path, env=environment)
    try:
        printed = _python("-c", AWAITED, at=tmp_path, path=installed)
    finally:
        second.kill()
        second.wait()

    assert first.returncode == -signal.SIGKILL
    assert printed.strip() == "[2, 4, 6, 8]"


def test_without_it_the_error_says_so(tmp_path: Path) -> None:
    """A name that nobody has is an error with the known names."""
    code = (
        "from dispatchers._config.registry import load_backend\n"
        "try:\n    load_backend('acme')\n"
        "except ValueError as exc:\n    print(exc)"
    )

    assert "no backend 'acme'" in _python("-c", code, at=tmp_path)


def test_it_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    """Its own tests, which inherit the conformance suite, pass where it is installed."""
    shutil.copytree(SOURCE / "tests", tmp_path / "tests")

    printed = _python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio",
        "-W", "error", "--strict-markers", "tests",
        at=tmp_path,
        path=installed,
    )  # fmt: skip

    found = re.search(r"(\d+) passed", printed)
    assert found is not None, printed
    assert int(found[1]) > 100
    assert "failed" not in printed


def test_it_imports_only_public_names() -> None:
    """What an author needs is public."""
    lines = [line for file in SOURCE.rglob("*.py") for line in file.read_text().splitlines()]

    private = {line for line in lines if re.match(r"\s*(from|import) dispatchers\S*\._", line)}

    assert not private
