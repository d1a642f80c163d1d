"""Try the command line where only the core is installed, or one extra besides: `look.py [EXTRA]`.

Run by `nox -s bare-installs`, in environments without pytest: standard library and ours only.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ADAPTERS = (
    "celery",
    "cloud_tasks",
    "django_q",
    "django_rq",
    "django_tasks",
    "dramatiq",
    "rq",
    "sqs",
)
GLUE = {"django": "dispatchers_django", "fastapi": "dispatchers_fastapi"}
MINIMAL = {
    "celery": {"url": "redis://127.0.0.1:1/0"},
    "cloud_tasks": {
        "project": "p",
        "location": "l",
        "queue": "q",
        "worker_url": "https://worker.example",
        "service_account": "tasks@p.iam.gserviceaccount.com",
    },
    "dramatiq": {"url": "redis://127.0.0.1:1/0"},
    "rq": {"url": "redis://127.0.0.1:1/0"},
    "sqs": {"queue": "q", "region": "eu-west-1", "endpoint": "http://127.0.0.1:1"},
    "sqlite": {"path": "work.sqlite3"},
}
CONTAINED = {
    "django-q": ("django", "django-q"),
    "django-tasks": ("django", "django-tasks"),
    "django-rq": ("django", "django-rq", "rq"),
}
"""Extras that bring what others bring."""
LATE = {"django_q"}
"""Adapters whose library wants Django's settings, and is imported after the adapter."""
EXTRA = sys.argv[1] if len(sys.argv) > 1 else ""
KNOWN = set(metadata.metadata("dispatchers").get_all("Provides-Extra") or ())
WORK = """
from dispatchers import task

@task
def welcome(user_id: int) -> None:
    print(user_id)
"""
printed: set[str] = set()
"""The requirements of every `pip install` that was printed."""


def run(folder: Path, *words: str) -> tuple[int, str]:
    """Run a command of ours; its exit code and all that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dispatchers", *words],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "400", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    text = done.stdout + done.stderr
    assert "Traceback (most recent" not in text, text[-3000:]
    for requirement in re.findall(r"pip install (?:--\S+ )*'([^']+)'", text):
        printed.add(requirement)
    return done.returncode, text


def configured(folder: Path, backend: str, like: str = "") -> None:
    """Write a project whose default backend is this one, with the options of `like`."""
    given = MINIMAL.get(like or backend, {})
    options = "".join(f"{key} = {value!r}\n" for key, value in given.items())
    (folder / "shop.py").write_text(WORK)
    (folder / "dispatchers.toml").write_text(
        f'tasks = ["shop"]\ntarget = "t"\n[targets.t.default]\nbackend = "{backend}"\n{options}'
    )


def is_here(backend: str) -> bool:
    return backend.replace("_", "-") in CONTAINED.get(EXTRA, (EXTRA,))


def cure(backend: str) -> str:
    return f"pip install 'dispatchers[{backend.replace('_', '-')}]'"


def listed(folder: Path) -> None:
    """Every adapter is installed or missing, with the command, and none is broken."""
    code, text = run(folder, "list", "--json")
    backends = {each["name"]: each for each in json.loads(text)}
    assert code == 0, text
    for name in ADAPTERS:
        assert backends[name]["state"] == ("installed" if is_here(name) else "missing"), text
        assert is_here(name) or cure(name) in backends[name]["reason"], text
    assert "broken" not in run(folder, "list")[1]
    assert not [name for name in backends if "acme" in name], text


def answers(folder: Path, backend: str) -> None:
    """Each command works, or says which extra is missing; none shows a traceback."""
    configured(folder, backend)
    for words in (
        ("doctor",),
        ("doctor", "--json"),
        ("explain", "shop.welcome"),
        ("tasks",),
        ("schema",),
        ("dispatch", "shop.welcome", "user_id=1"),
        ("worker", "--drain"),
        ("dead", "list"),
    ):
        if is_here(backend) and words[0] in ("dispatch", "worker", "dead"):
            continue  # nobody answers at that address
        code, text = run(folder, *words)
        if words[0] in ("tasks", "schema"):
            assert code == 0, text
        elif not is_here(backend):
            assert (code != 0) is (words[0] != "explain"), (words, text)
            assert cure(backend) in text, (words, text)
        assert "broken" not in text, (words, text)
        assert "uninstall" not in text, (words, text)


def auto(folder: Path) -> None:
    """`auto` takes the one that is there, or prints the command for each."""
    here = [name for name in ADAPTERS if is_here(name)]
    configured(folder, "auto", *here[:1])
    _, text = run(folder, "explain", "shop.welcome")
    if here:
        assert all(name in text for name in here), text
        return
    assert "every dispatch is rejected" in text, text
    for name in ADAPTERS:
        assert cure(name) in text, text
    assert "broken" not in text, text


def built_in(folder: Path) -> None:
    """What needs no extra works without one."""
    configured(folder, "sqlite")
    for words in (("doctor",), ("dispatch", "shop.welcome", "user_id=42")):
        code, text = run(folder, *words)
        assert code == 0, text
    code, text = run(folder, "worker", "--drain")
    assert code == 0, text
    assert "42" in text, text
    code, text = run(folder, "--help")
    assert code == 0, text


def imports() -> None:
    """An import without its library is an ImportError that names a library, and nothing else."""
    modules = {**{name: f"dispatchers_{name}" for name in ADAPTERS}, **GLUE}
    for name, module in modules.items():
        try:
            importlib.import_module(module)
        except ImportError:
            assert not is_here(name), name
        else:
            assert is_here(name) or name in LATE, name
    for room in ("redis", "rabbitmq", "http", "stores", "net", "native", "delivery", "outbox"):
        if importlib.util.find_spec(f"dispatchers.{room}"):
            importlib.import_module(f"dispatchers.{room}")
    importlib.import_module("dispatchers.held")
    outbox = importlib.import_module("dispatchers.outbox")
    try:
        said = "" if outbox.metadata is not None else "no tables"
    except ImportError as exc:
        said = str(exc)
    library = importlib.util.find_spec("sqlalchemy") is not None
    assert library is (said == ""), said
    assert library or "dispatchers[sqlalchemy]" in said, said


def commands() -> None:
    """Every printed command names an extra that exists, in the spelling every pip takes."""
    for requirement in printed:
        match = re.fullmatch(r"dispatchers\[([a-z,-]+)\]", requirement)
        assert match is None or set(match[1].split(",")) <= KNOWN, requirement
        assert "dispatchers" not in requirement or match, requirement


def main() -> None:
    """Try everything in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed(folder)
        imports()
        for backend in ADAPTERS:
            if is_here(backend) or not EXTRA:  # what is missing is told the same with any extra
                answers(folder, backend)
        auto(folder)
        built_in(folder)
    commands()
    print(f"{EXTRA or 'no extra'}: all well; printed: {', '.join(sorted(printed)) or 'nothing'}")


main()
