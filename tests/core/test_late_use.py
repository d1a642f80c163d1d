"""First use in a thread that outlives the main one, and files that belong to others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from dispatchers import ConfigurationError, DispatchStatus, ErrorCategory, Task, build, task
from dispatchers.backends.null import NullDispatcher
from dispatchers.backends.sqlite import SQLiteDispatcher

LATE = """
import sys, threading
from dispatchers import configure, get_dispatcher, task

@task(name="late.job")
def job() -> None: ...

def late() -> None:
    threading.main_thread().join()
    response = job.dispatch()
    print(response.status, response.error.category if response.error else "")

configure({"target": "t", "targets": {"t": {"default": %r}}}) if %r else None
threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("backend", ["thread", "sqlite", "celery", "rq", "dramatiq"])
def test_a_backend_is_first_used_after_the_main_thread(backend: str, tmp_path: Path) -> None:
    """A thread that outlives the main one may be the first that dispatches, on any backend."""
    options = {"sqlite": 'path = "q"'}.get(backend, 'url = "redis://127.0.0.1:1/0"')
    (tmp_path / "dispatchers.toml").write_text(
        f'target = "t"\n[targets.t.default]\nbackend = "{backend}"\n'
        f"{'' if backend == 'thread' else options}\n"
    )

    said = subprocess.run(
        [sys.executable, "-c", LATE % ({}, False)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    is_installed = backend in ("thread", "sqlite") or find_spec(backend) is not None
    reached = ("accepted", "rejected unavailable", "rejected timeout")
    if sys.version_info[:2] == (3, 12) and backend == "thread":
        reached = ("rejected capacity",)  # that Python starts no thread once the main one has ended
    expected = reached if is_installed else ("rejected missing_dependency",)
    assert said.stdout.strip().startswith(expected), said.stdout + said.stderr


# Files of others.


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_queue_file_of_another_user_is_a_matter_of_permission(tmp_path: Path) -> None:
    """A file that this process may not open is `permission`, with the owner and the cure."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    path = tmp_path / "shared" / "q.db"
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    SQLiteDispatcher(path=str(path)).check(contact=True)

    @task(name="files.job")
    def job() -> None: ...

    # Another user may not read this Python's files: what is imported late is imported now.
    job.options(dispatcher=SQLiteDispatcher(path=str(path))).dispatch()
    repr(job.options(dispatcher=SQLiteDispatcher(path="/nowhere/q")).dispatch().error)

    read, write = os.pipe()
    if not (child := os.fork()):
        _tell(write, lambda: _as_somebody_else(str(path), job))
    os.close(write)
    said = os.read(read, 65536).decode()
    os.waitpid(child, 0)
    os.close(read)

    assert "ErrorCategory.PERMISSION" in said
    assert said.count("it is of user 0, mode 0600, this process is of user 65534") == 2
    assert said.count("change its owner or mode") == 2


def _as_somebody_else(path: str, job: Task[[], None]) -> str:
    os.setuid(65534)
    dispatcher = SQLiteDispatcher(path=path)
    error = job.options(dispatcher=dispatcher).dispatch().error
    try:
        dispatcher.check()
    except ConfigurationError as exc:
        return f"{error!r}\n{exc}"
    return f"{error!r}\nnothing"


def _tell(write: int, work: Callable[[], str]) -> NoReturn:
    try:
        os.write(write, work().encode())
    except BaseException as exc:  # noqa: BLE001 - the parent tells
        os.write(write, repr(exc).encode())
    finally:
        os._exit(0)


# Dispatchers of one's own.


def test_build_makes_a_dispatcher_of_ones_own(tmp_path: Path) -> None:
    """`build` gives a dispatcher from a backend's name and options, known to nobody else."""
    dispatcher = build("sqlite", path=str(tmp_path / "q"), queue="audit", alias="acme_audit")

    assert isinstance(dispatcher, SQLiteDispatcher)
    assert (dispatcher.alias, dispatcher.options.queue) == ("acme_audit", "audit")
    assert build("null") is not build("null")
    assert type(build("null")) is NullDispatcher
    assert build("null").alias == "null"


@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("sqlit", {}, "did you mean 'sqlite'"),
        ("sqlite", {"pth": "x"}, "did you mean 'path'"),
        ("sqlite", {}, "path"),
        (7, {}, "must be a name"),
    ],
)
def test_build_refuses_with_words(backend: str, options: dict[str, object], words: str) -> None:
    """`build` raises what is wrong: the backend's name or the option, and the nearest one."""
    with pytest.raises(ConfigurationError, match=words):
        build(backend, **options)


def test_a_built_dispatcher_hands_over() -> None:
    """What `build` gives hands over like any other dispatcher."""

    @task(name="built.job")
    def job() -> None: ...

    dispatcher = build("memory")

    assert job.options(dispatcher=dispatcher).dispatch().status is DispatchStatus.ACCEPTED
    assert dispatcher.close(0.0) == 1
    assert ErrorCategory.CLOSED
