"""A small application in a folder of its own, and the program run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dispatchers import catalogue
from dispatchers._config.api import reload
from dispatchers.cli import main

SHOP = 'modules = ["cli_shop"]\ntarget = "test"\n[targets.test]\n'
"""A configuration up to its dispatchers."""
TASKS = """
from dispatchers import Backoff, Discard, declare, task

ran = []

@task(name="shop.welcome", queue="mail", max_attempts=5, time_limit=30,
      backoff=Backoff(initial=10, factor=2, maximum=600))
def welcome(user_id: int, locale: str = "en") -> None:
    ran.append((user_id, locale))
    print("hello", user_id)

@task(name="shop.boom")
def boom(order: int = 1) -> None:
    raise RuntimeError("a secret of the handler")

@task(name="shop.track", dispatcher="tracking")
def track(event: str) -> None: ...
"""


@dataclass
class Ran:
    """What a run of the program said."""

    code: int
    out: str
    err: str


@dataclass
class Shop:
    """An application in a folder."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def configure(self, text: str) -> None:
        (self.folder / "dispatchers.toml").write_text(text)
        reload()

    def module(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)

    def __call__(self, *argv: str) -> Ran:
        """Run the program in this process."""
        self.capture.readouterr()
        try:
            code = main(argv)
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 0
        out, err = self.capture.readouterr()
        return Ran(code, out, err)

    def process(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Run the program as a process of its own."""
        command = [sys.executable, "-m", "dispatchers", *argv]
        env = {**os.environ, **variables}
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, timeout=60, check=False
        )


@pytest.fixture
def shop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shop]:
    for name in [name for name in os.environ if name.startswith("DISPATCHERS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "_tasks", {})
    monkeypatch.setattr(catalogue, "_former", {})
    found = Shop(tmp_path, capsys)
    found.module("cli_shop", TASKS)
    found.configure(f'{SHOP}default = "inline"\n')
    yield found
    for name in [name for name in sys.modules if name.startswith("cli_shop")]:
        del sys.modules[name]
    monkeypatch.undo()
    reload()


@pytest.fixture
def lines() -> Callable[[str], list[str]]:
    return lambda text: [line.rstrip() for line in text.splitlines() if line.strip()]
