"""Dispatches while the interpreter ends: from exit functions, threads and destructors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

START = """
import asyncio, atexit, json, os, sys, threading
import dispatchers
from dispatchers import task

BACKENDS = {
    "inline": "inline", "thread": "thread", "asyncio": "asyncio", "memory": "memory",
    "null": "null", "sqlite": {"backend": "sqlite", "path": sys.argv[1]},
}
dispatchers.configure({"targets": {"t": {"default": "inline", **BACKENDS}}}, target="t")

@task(name="attack.late")
def late(x: int) -> None:
    pass

def tell(alias, response, json=json, os=os):
    error = response.error
    said = [alias, response.status, error and error.category, error and error.message]
    os.write(1, json.dumps(said).encode() + b"\\n")

def used():
    for alias in BACKENDS:
        assert late.options(dispatcher=alias).dispatch(1).ok
"""
LATE = """
@atexit.register
def bye():
    for alias in BACKENDS:
        tell(alias, late.options(dispatcher=alias).dispatch(1))
        tell(alias, asyncio.run(late.options(dispatcher=alias).adispatch(1)))
"""
DELETED = """
class Last:
    def __del__(self, backends=BACKENDS, tell=tell, late=late):
        for alias in backends:
            tell(alias, late.options(dispatcher=alias).dispatch(1))

import builtins
builtins.kept_to_the_end = Last()
"""
CALM = {"closed", "unavailable", "configuration", "missing_dependency", None}
"""What may be said of a dispatch that comes too late."""


def answers(source: str, folder: Path) -> list[tuple[str, str, str | None, str | None]]:
    """What a process says, and nothing but that, before it ends well."""
    argv = [sys.executable, "-c", START + source, str(folder / "work.sqlite3")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("before", ["", "used()"], ids=["unused", "used"])
def test_an_exit_function_may_dispatch(tmp_path: Path, before: str) -> None:
    """C1: work dispatched in an exit function is done, handed over or refused: no thread starts."""
    said = answers(LATE + before, tmp_path)

    assert len(said) == 12
    assert {category for _, _, category, _ in said} <= {"closed", "capacity", None}


@pytest.mark.parametrize("before", ["", "used()"], ids=["unused", "used"])
def test_a_destructor_may_dispatch_when_modules_are_gone(tmp_path: Path, before: str) -> None:
    """C1: dispatched while modules are torn down, the answer is an answer."""
    said = answers(DELETED + before, tmp_path)

    assert len(said) == 6
    assert {category for _, _, category, _ in said} <= CALM
