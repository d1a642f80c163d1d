"""The project's checks, one session each; `nox -l` lists them.

Every installed Python from 3.11 up runs the tests. One that is missing is named at the end of
`nox -s pythons`, and is an error where DISPATCHERS_REQUIRE_PYTHONS is set.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
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

TOGETHER = ("-n", "4", "--dist", "loadscope")
"""How the README's test command runs them."""

nox.options.sessions = [
    *(
        "lint",
        "types",
        "tests",
        "slow",
        "bare",
        "bare-installs",
        "oldest",
        "docs",
        "django-suite",
        "package",
        "pythons",
    ),
]
nox.options.error_on_missing_interpreters = True
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")


def _wheel(session: nox.Session) -> str:
    """Build the wheel, once for all sessions: what is tested is what will be installed."""
    if not _built:
        session.install("build")
        out = Path(session.create_tmp()) / "wheel"
        shutil.rmtree(out, ignore_errors=True)
        session.run("python", "-m", "build", "--wheel", "--outdir", str(out), silent=True)
        _built.append(next(out.glob("*.whl")).resolve())
    return str(_built[0])


_built: list[Path] = []


@nox.session(python=INSTALLED)
def tests(session: nox.Session) -> None:
    """All tests, against the built wheel."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run("pytest", *session.posargs)


@nox.session(python=INSTALLED)
def bare(session: nox.Session) -> None:
    """The core alone: pydantic, typing-extensions and pytest; no extra of ours."""
    session.install(_wheel(session), "pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
    session.run("pytest", "tests/core", *session.posargs)


@nox.session(python=OLDEST)
def slow(session: nox.Session) -> None:
    """What takes minutes: the faults of brokers from fifty threads, long kills."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run(
        "pytest", "-m", "slow and not soak", "-n", "3", "--dist", "loadscope", *session.posargs
    )


@nox.session(name="bare-installs", python=OLDEST)
@nox.parametrize("pip", ["23.2", "newest"])
def bare_installs(session: nox.Session, pip: str) -> None:
    """No extra, and each one alone, installed as our messages say: `list`, `doctor`, `auto` ..."""
    nothing = _installed(session)
    wheel = _wheel(session)
    _uninstall(session, _installed(session) - nothing)  # what has built the wheel
    wanted = ("--upgrade", "pip") if pip == "newest" else (f"pip=={pip}",)
    session.run("python", "-m", "pip", "install", "-q", *wanted)
    session.run("python", "-m", "pip", "install", "-q", wheel)
    session.run("python", "tests/bare/look.py")
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in sorted(set(session.posargs or extras) - {"tests"}):
        before = _installed(session)
        session.run("python", "-m", "pip", "install", "-q", f"dispatchers[{extra}]")
        session.run("python", "tests/bare/look.py", extra)
        _uninstall(session, _installed(session) - before)


def _uninstall(session: nox.Session, names: set[str]) -> None:
    if names:
        session.run("python", "-m", "pip", "uninstall", "-q", "-y", *sorted(names), silent=True)


def _installed(session: nox.Session) -> set[str]:
    listed = session.run("python", "-m", "pip", "list", "--format=freeze", silent=True)
    return {line.partition("==")[0] for line in str(listed).splitlines() if "==" in line}


@nox.session(python=OLDEST)
def repeat(session: nox.Session) -> None:
    """The test command again and again: `nox -s repeat -- 20 [busy]`; `busy` loads every core.

    Says of each run whether it passed and how long it took, and fails if one has failed.
    """
    times = int(next((word for word in session.posargs if word.isdigit()), "20"))
    load = os.cpu_count() or 1 if "busy" in session.posargs else 0
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(load)]
    try:
        runs = [_timed(session, number) for number in range(1, times + 1)]
    finally:
        for process in busy:
            process.kill()
    seconds = [each for _, each in runs]
    failed = sum(not passed for passed, _ in runs)
    median, most = statistics.median(seconds), max(seconds)
    session.log(f"{times} runs, {failed} failed; median {median:.0f} s, longest {most:.0f} s")
    if failed:
        session.error("a flaky test is a broken test")


def _timed(session: nox.Session, number: int) -> tuple[bool, float]:
    began = time.monotonic()
    codes = [0, 1]  # failed tests are counted, everything else ends the session
    log = Path(session.create_tmp()) / f"run-{number}.log"
    with log.open("w") as out:
        session.run("pytest", *TOGETHER, stdout=out, stderr=out, success_codes=codes)
    took = time.monotonic() - began
    last = log.read_text().splitlines()[-1]
    session.log(f"run {number}: {last}; {took:.0f} s; {log}")
    return " failed" not in last and " error" not in last, took


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """Mypy and pyright, both strict, over the packages and what users write."""
    session.install("-e", ".[tests]", "mypy", "basedpyright")
    session.run("mypy")
    session.run("mypy", "--strict", "tests/typing")
    session.run("basedpyright", "--level", "error", "-p", "pyproject.toml")
    session.run("python", "docs/_types.py")


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Ruff, with a reason beside each rule that is off."""
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


# Without `django-tasks`: on the oldest Python its lowest versions are what `tests` installs.
RANGES = ["redis", "rq", "django-rq", "django-q", "celery", "dramatiq", "cloud-tasks", "sqs"]


@nox.session(python=OLDEST)
@nox.parametrize("adapter", RANGES)
def oldest(session: nox.Session, adapter: str) -> None:
    """Each adapter's tests with the lowest versions that its extra declares."""
    _ranged(session, adapter, *_lowest(adapter))


@nox.session(python=OLDEST)
@nox.parametrize("adapter", RANGES)
def newest(session: nox.Session, adapter: str) -> None:
    """Each adapter's tests with the newest versions that its extra allows."""
    _ranged(session, adapter, "--upgrade", *_declared(adapter))


def _ranged(session: nox.Session, adapter: str, *versions: str) -> None:
    session.install("--upgrade", f"dispatchers[tests,{adapter}] @ file://{_wheel(session)}")
    session.install(*versions)
    session.run("pytest", f"tests/adapters/{adapter.replace('-', '_')}", *session.posargs)


def _declared(extra: str) -> list[str]:
    project = nox.project.load_toml("pyproject.toml")["project"]
    return list(project["optional-dependencies"][extra])


def _lowest(extra: str) -> list[str]:
    """Return the first releases in the ranges: `redis>=6` is `redis==6.0.*`."""
    bounds = [re.match(r"([\w.-]+)>=(\d+)(?:\.(\d+))?", each) for each in _declared(extra)]
    return [f"{found[1]}=={found[2]}.{found[3] or 0}.*" for found in bounds if found]


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """Every block of the documentation runs."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(name="django-suite", python="3.13")  # Django 6 wants 3.12
def django_suite(session: nox.Session) -> None:
    """Django's own tests of task backends, with `DispatcherBackend` in the place of its two."""
    session.install(f"dispatchers[django] @ file://{_wheel(session)}")
    out = Path(session.create_tmp()) / "source"
    shutil.rmtree(out, ignore_errors=True)
    asked = session.run("python", "-c", "import django; print(django.__version__)", silent=True)
    source = ("--no-deps", "--no-binary", "Django", "--dest", str(out))  # wheels have no tests
    session.run("python", "-m", "pip", "download", "-q", *source, f"Django=={str(asked).strip()}")
    shutil.unpack_archive(next(out.glob("*.tar.gz")), out)
    suite = "tests/contrib/django/django_suite.py"
    folder = str(next(path for path in out.iterdir() if path.is_dir()))
    session.run("python", suite, folder)
    session.run("python", suite, folder, "unkept")


@nox.session(python=OLDEST)
def site(session: nox.Session) -> None:
    """The documentation as a site, in `site/`; a broken link is an error."""
    session.install("mkdocs-material>=9.6,<10")
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


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
    """The long form of the kill and chaos tests; `slow` runs the short one."""
    session.install(f"dispatchers[tests] @ file://{_wheel(session)}")
    session.run("pytest", "-m", "soak", "--timeout", "3600", *session.posargs)


@nox.session(venv_backend="none")
def pythons(session: nox.Session) -> None:
    """Say which Pythons the tests ran on, and which are missing here."""
    session.log(f"tested on {', '.join(INSTALLED)}; missing here: {', '.join(MISSING) or 'none'}")
    if MISSING and os.environ.get("DISPATCHERS_REQUIRE_PYTHONS"):
        session.error(f"not installed: {', '.join(MISSING)}")
