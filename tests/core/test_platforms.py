"""Windows and macOS, simulated: a process in which what they lack is absent.

Names and modules are taken away once the standard library, which chose its own way at its import,
is loaded. What the system itself does differently cannot be seen this way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="simulates the others")

SIMULATE = """
import argparse, asyncio, concurrent.futures, importlib.metadata, logging.handlers, multiprocessing
import os, pathlib, pydantic.main, pydantic.type_adapter, runpy, shutil, tomllib, zoneinfo
import selectors, signal, socket, sqlite3, subprocess, sys, tempfile, threading, uuid

def take(module, *names):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

platform = sys.argv.pop(1)
LINUX = ("sched_getaffinity", "sched_setaffinity", "eventfd", "pidfd_open", "memfd_create")
POSIX = (
    "fork", "forkpty", "register_at_fork", "killpg", "setsid", "setpgid", "getpgid", "getpgrp",
    "getuid", "geteuid", "getgid", "getegid", "chown", "fchmod", "mkfifo", "wait", "wait3", "wait4",
    "waitid", "WNOHANG", "WEXITSTATUS", "WIFSIGNALED", "uname", "nice", "sysconf", "getloadavg",
    "O_NOFOLLOW", "O_CLOEXEC", "set_blocking", "get_blocking", "posix_spawn", "fchdir",
)
SIGNALS = [name for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")]
KEPT = {"SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV"}
take(os, *LINUX)
os.process_cpu_count = os.cpu_count  # as Python defines it where there is no affinity
sys.platform = platform
if platform == "win32":
    take(os, *POSIX)
    take(signal, *(name for name in SIGNALS if name not in KEPT))
    take(signal, "alarm", "setitimer", "pthread_sigmask", "sigwait", "siginterrupt")
    for module in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "posix"):
        sys.modules[module] = None
    subprocess.CREATE_NEW_PROCESS_GROUP = 0x200
"""
RUN = SIMULATE + "\nrunpy.run_module('dispatchers', run_name='__main__', alter_sys=True)\n"
SHOP = """
from dispatchers import task

@task
def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("done")
"""


class Machine:
    """A machine of another kind, with a project on it."""

    def __init__(self, platform: str, folder: Path) -> None:
        self.platform = platform
        self.folder = folder
        (folder / "shop.py").write_text(SHOP)

    def configure(self, backend: str, **options: object) -> None:
        lines = "".join(f"{key} = {value!r}\n" for key, value in options.items())
        (self.folder / "dispatchers.toml").write_text(
            f'tasks = ["shop"]\ntarget = "t"\n[targets.t.default]\nbackend = "{backend}"\n{lines}'
        )

    def run(self, *words: str, source: str = RUN) -> tuple[int, str]:
        """Run our command line, or a source, there: exit code and all that it prints."""
        done = subprocess.run(
            [sys.executable, "-c", source, self.platform, *words],
            cwd=self.folder,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "300"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        text = done.stdout + done.stderr
        assert "Traceback (most recent" not in text, text[-3000:]
        return done.returncode, text


@pytest.fixture(params=["win32", "darwin"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(request.param, tmp_path)


@pytest.fixture
def windows(tmp_path: Path) -> Machine:
    return Machine("win32", tmp_path)


DISPATCH = (
    SIMULATE
    + """
from dispatchers import close_all
from shop import note

def all_ways():
    yield note.dispatch("out").status.value
    batch = note.batch()
    batch.add("out")
    yield from [each.status.value for each in batch.dispatch()]

async def main():
    print(*all_ways(), (await note.adispatch("out")).status.value, flush=True)
    close_all()

asyncio.run(main())
"""
)


@pytest.mark.parametrize("backend", ["inline", "thread", "asyncio", "memory", "null", "sqlite"])
def test_dispatching_works_on_every_built_in_backend(machine: Machine, backend: str) -> None:
    """C1: no fork, no POSIX signals and no file locks are needed to dispatch."""
    machine.configure(backend, **({"path": "work.sqlite3"} if backend == "sqlite" else {}))

    code, text = machine.run(source=DISPATCH)

    word = "executed" if backend == "inline" else "accepted"
    assert code == 0, text
    assert " ".join([word] * 3) in text.splitlines(), text


def test_a_worker_that_cannot_run_is_refused_with_words(windows: Machine) -> None:
    """What does not work is said at once, with the cure."""
    windows.configure("sqlite", path="work.sqlite3")

    code, text = windows.run("worker", "--drain")

    assert code != 0
    assert "needs a POSIX system" in text


def test_doctor_says_that_the_worker_cannot_run(windows: Machine) -> None:
    """The start-up check knows it before work is accepted that nothing here can run."""
    windows.configure("sqlite", path="work.sqlite3")

    code, text = windows.run("doctor", "--strict")

    assert code == 1, text
    assert "POSIX" in text


def test_the_demo_is_refused_before_anything_is_dispatched(windows: Machine) -> None:
    """It needs workers, and leaves no file behind."""
    code, text = windows.run("demo", "--dir", "demo")

    assert code != 0
    assert "POSIX" in text
    assert not (windows.folder / "demo").exists()


@pytest.mark.parametrize(
    "words", [("list",), ("explain", "shop.note"), ("tasks",), ("schema",), ("dead", "list")]
)
def test_every_other_command_works(machine: Machine, words: tuple[str, ...]) -> None:
    """None of them needs what the system lacks."""
    machine.configure("sqlite", path="work.sqlite3")

    code, text = machine.run(*words)

    assert code == 0, text


def test_a_worker_on_macos_runs_what_was_dispatched(tmp_path: Path) -> None:
    """None of Linux's own calls is needed; its `/proc` cannot be taken away here."""
    mac = Machine("darwin", tmp_path)
    mac.configure("sqlite", path="work.sqlite3")

    dispatched = mac.run("dispatch", "shop.note", f"path={tmp_path / 'out'}")
    worked = mac.run("worker", "--drain")

    assert (dispatched[0], worked[0]) == (0, 0), (dispatched, worked)
    assert (tmp_path / "out").read_text() == "done"
