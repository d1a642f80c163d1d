"""A record of handlers' acts in a file, readable from any thread and process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from dispatchers import current_run

__all__ = ["Entry", "Journal"]


class Entry(NamedTuple):
    """One thing that one run did."""

    request_id: str
    """The id of the request."""
    task: str
    """The registered name of the task."""
    attempt: int
    """Which attempt it was."""
    deliveries: int
    """How often that attempt had been delivered."""
    text: str
    """What the handler had to say."""
    at: float
    """When, in seconds since the epoch."""
    pid: int
    """In which process."""


class Journal:
    """A file that handlers append to, and a test reads.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def write(self, text: str) -> None:
        """Append an entry of the current run, in one write that no other one cuts in two."""
        run = current_run()
        entry = Entry(
            run.request.id,
            run.task.name,
            run.attempt,
            run.deliveries,
            text,
            time.time(),
            os.getpid(),
        )
        self._append(entry._asdict())

    def release(self) -> None:
        """Let runs that wait in `wait_for_release` go on."""
        Path(self._released).touch()

    def wait_for_release(
        self, limit: float = 10.0, *, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until `release` is called or `until()` is true, at most `limit` seconds."""
        end = time.monotonic() + limit
        # A file, as an event of this process would not reach a worker's.
        while not (Path(self._released).exists() or until()) and time.monotonic() < end:
            time.sleep(0.005)

    @property
    def _released(self) -> str:
        return f"{self.path}.released"

    def _append(self, values: Mapping[str, object]) -> None:
        # `O_APPEND`: the system puts each write at the end, so that processes need no lock among
        # them.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(values).encode() + b"\n")
        finally:
            os.close(file)

    @property
    def entries(self) -> list[Entry]:
        """Everything so far, in order."""
        try:
            # Read anew each time: the writers are other processes.
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        # The last line of a write that goes on may be there in part.
        whole = text[: text.rfind("\n") + 1]
        return [Entry(**json.loads(line)) for line in whole.splitlines()]

    @property
    def texts(self) -> list[str]:
        """Return the entries so far, in order."""
        return [entry.text for entry in self.entries]

    def of(self, request_id: str) -> list[Entry]:
        """Return the entries of one request."""
        return [entry for entry in self.entries if entry.request_id == request_id]
