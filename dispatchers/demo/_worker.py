"""The worker that the demo starts: the same command that an operator would start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dispatchers

from ._flow_folder import FlowFolder
from ._folder import Folder

__all__ = ["DemoWorker"]

GRACE = 2.0
"""Seconds that running tasks get when the demo ends before they do."""


class DemoWorker:
    """`dispatchers worker` as a process that ends when the demo does, however that ends.

    The worker's standard input is a pipe from here: when this process goes, even by `kill -9`,
    the system closes it, and the worker stops.

    Args:
        folder: Where the configuration is.

        concurrency: How many worker processes.
    """

    def __init__(self, folder: Folder | FlowFolder, concurrency: int) -> None:
        self._folder = folder
        self.command = [
            "dispatchers", "--config", str(folder.configuration), "worker",
            "--concurrency", str(concurrency), "--grace", f"{GRACE:g}s",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        with self._folder.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this very Python
                # This very Python: another one on the path might not have the library.
                [sys.executable, "-m", *self.command, "--until-eof", "--log-level", "warning"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder.path,
                env=_environment(),
                **_apart(),
            )
        self._folder.pid.write_text(str(self._process.pid))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        # The end of the input is what tells the worker to stop, on every system.
        self._process.stdin.close()
        try:
            self._process.wait(GRACE + 8.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.pid.unlink(missing_ok=True)

    @property
    def number(self) -> int:
        """Return its process id."""
        return self._process.pid

    def kill(self, others: Iterable[int]) -> None:
        """Kill it by SIGKILL, and its processes, as a machine that fails would.

        Args:
            others: The ids of the processes that it has started.
        """
        self._process.kill()
        for number in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._process.wait()

    @property
    def died(self) -> str | None:
        """The end of the worker's log, if it has ended although it was not told to."""
        if self._process.poll() is None:
            return None
        lines = self._folder.log.read_text("utf-8", "replace").splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def _apart() -> dict[str, Any]:
    """Out of reach of the terminal's Ctrl-C: the demo stops it in an orderly way."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _environment() -> dict[str, str]:
    """Ours; with this very package on the path where it runs from a checkout."""
    home = str(Path(dispatchers.__file__).parent.parent)
    if Path(home).name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
