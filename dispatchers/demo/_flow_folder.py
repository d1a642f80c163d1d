"""The folder of the demo's workflow: its configuration, its file, the traces of its effects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ._folder import await_end

__all__ = ["FlowFolder", "Run"]

CONFIGURATION = """\
# Written by `dispatchers demo`. Queue and journal of the workflow are one SQLite file.
target = "demo"
modules = ["dispatchers.demo.flows"]

[targets.demo.default]
backend = "sqlite"
path = {path}
lease = 2.0
"""


class Run(NamedTuple):
    """One run of a step, as its trace tells."""

    worker: int
    """The process id of its worker."""
    process: int
    """The process id of the worker's process that it ran in."""
    step: str


class FlowFolder:
    """The files of the demo's workflow.

    Args:
        path: The folder; created if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configuration = path / "dispatchers.toml"
        self.work = path / "work.sqlite3"
        self.effects = path / "effects.txt"
        self.log = path / "worker.log"
        self.pid = path / "worker.pid"

    def prepare(self) -> None:
        """Write what a run needs, and remove what an earlier one has left."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        # Its worker may still write into the files that are removed.
        await_end(self.pid)
        for suffix in ("", "-wal", "-shm"):
            self.work.with_name(self.work.name + suffix).unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        self.effects.write_text("")
        text = CONFIGURATION.format(path=json.dumps(str(self.work)))
        self.configuration.write_text(text, encoding="utf-8")

    def runs(self) -> list[Run]:
        """Return each run of a step, in order."""
        lines = (line.split(" ", 2) for line in self.effects.read_text().splitlines())
        return [Run(int(worker), int(process), step) for worker, process, step in lines]
