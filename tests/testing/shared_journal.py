"""A `MemoryJournal` in a file, for several processes: each call reads and writes all of it."""

from __future__ import annotations

import fcntl
import functools
import os
import pickle
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dispatchers._journal.memory import MemoryJournal

__all__ = ["SharedJournal"]


class SharedJournal:
    """Executions in one file, replaced as a whole while a lock is held."""

    def __init__(self, folder: Path, **options: float) -> None:
        self.folder = folder
        self.options = options
        self.claims: Any = _Claims(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(MemoryJournal, name):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def call(self, name: str, *args: Any, on_claims: bool = False, **options: Any) -> Any:
        """Call a method of the journal in the file, or of its claims."""
        with self.locked():
            journal = self.read()
            result = getattr(journal.claims if on_claims else journal, name)(*args, **options)
            self.written(journal, name)
            return result

    @contextmanager
    def locked(self) -> Generator[None]:
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> Any:
        journal: Any = MemoryJournal(**self.options)
        path = self.folder / "journal"
        if path.exists():
            journal._executions, journal.claims._entries = pickle.loads(path.read_bytes())
        return journal

    def written(self, journal: Any, call: str) -> None:
        del call
        self.write(journal)

    def write(self, journal: Any) -> None:
        new = self.folder / f"new-{os.getpid()}-{threading.get_ident()}"
        new.write_bytes(pickle.dumps((journal._executions, journal.claims._entries)))
        new.replace(self.folder / "journal")


class _Claims:
    def __init__(self, shared: SharedJournal) -> None:
        self.shared = shared

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.shared.call, name, on_claims=True)
