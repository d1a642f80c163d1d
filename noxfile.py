"""The project's checks, one session each; `nox -l` lists them.

Every installed Python from 3.11 up runs the tests. One that is missing is named at the end of
`nox -s pythons`, and is an error where DISPATCHERS_REQUIRE_PYTHONS is set.
"""

import os
import shutil
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
OLDEST, DIST = PYTHONS[0], Path("dist")

for versions in (Path.home() / ".pyenv" / "versions",):  # pyenv keeps them off the path
    for found in sorted(versions.glob("3.*/bin")):
        os.environ["PATH"] += os.pathsep + str(found)


def _is_installed(version: str) -> bool:
    return shutil.which(f"python{version}") is not None


INSTALLED = [version for version in PYTHONS if _is_installed(version)]
MISSING = [version for version in PYTHONS if version not in INSTALLED]

nox.options.sessions = ["lint", "types", "tests", "bare", "docs", "package", "pythons"]
nox.options.error_on_missing_interpreters = True
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")


def _wheel(session: nox.Session) -> str:
    """Build the wheel: what is tested is what will be installed."""
    session.install("build")
    out = Path(session.create_tmp()) / "wheel"
    shutil.rmtree(out, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(out), silent=True)
    return str(next(out.glob("*.whl")).resolve())


@nox.session(python=INSTALLED)
def tests(session: nox.Session) -> None:
    """All tests, against the built wheel."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run("pytest", *session.posargs)


@nox.session(python=INSTALLED)
def bare(session: nox.Session) -> None:
    """The core alone: pydantic, typing-extensions and pytest; no extra of ours."""
    session.install(_wheel(session), "pytest", "pytest-timeout", "hypothesis")
    session.run("pytest", "tests/core", *session.posargs)


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """Mypy and pyright, both strict, over the packages and what users write."""
    session.install("-e", ".[cli,testing,celery,oidc]", "mypy", "basedpyright")
    session.run("mypy")
    session.run("mypy", "--strict", "tests/typing")
    session.run("basedpyright", "--level", "error", "-p", "pyproject.toml")


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Ruff, with a reason beside each rule that is off."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """Every block of the documentation runs."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(python=OLDEST)
def package(session: nox.Session) -> None:
    """The sdist and the wheel build, install and start."""
    session.install("build")
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    for built in sorted(DIST.iterdir()):
        session.install("--force-reinstall", str(built))
        session.run("dispatchers", "--version")


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """The figures of benchmarks/README.md, beside their peers in the same run."""
    session.install(f"dispatchers @ file://{_wheel(session)}", "-r", "benchmarks/requirements.txt")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=OLDEST)
def soak(session: nox.Session) -> None:
    """The long form of the kill and chaos tests; the test command runs the short one."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run("pytest", "-m", "soak", "--timeout", "3600", *session.posargs)


@nox.session(venv_backend="none")
def pythons(session: nox.Session) -> None:
    """Say which Pythons the tests ran on, and which are missing here."""
    session.log(f"tested on {', '.join(INSTALLED)}; missing here: {', '.join(MISSING) or 'none'}")
    if MISSING and os.environ.get("DISPATCHERS_REQUIRE_PYTHONS"):
        session.error(f"not installed: {', '.join(MISSING)}")
