"""The folder: what waits, what is being worked on, what is dead, and what is half-written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path

__all__ = ["File", "Spool"]

FOLDERS = ("new", "waiting", "claimed", "dead")
_numbers = count()


@dataclass(frozen=True, slots=True)
class File:
    """What a file's name says."""

    due: int
    """Milliseconds since the epoch."""
    number: int
    """Nanoseconds since the epoch when it was dispatched: what came first goes first."""
    attempt: int
    deliveries: int
    id: str

    @property
    def name(self) -> str:
        """The name of the file; sorted, the names are in the order in which work is due."""
        return f"{self.due:015d}.{self.number:020d}.{self.attempt}.{self.deliveries}.{self.id}"

    @classmethod
    def of(cls, name: str) -> File:
        """What a name says."""
        due, number, attempt, deliveries, id_ = name.split(".", 4)
        return cls(int(due), int(number), int(attempt), int(deliveries), id_)


class Spool:
    """One folder, shared by any number of processes.

    Args:
        path: The folder.

        lease: Seconds after which claimed work that nobody has touched is delivered again.
    """

    def __init__(self, path: Path, lease: float) -> None:
        self.path = path
        self.lease = lease

    def open(self) -> None:
        """Make the folders."""
        for name in FOLDERS:
            (self.path / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, id_: str, body: bytes, due: datetime) -> None:
        """Keep an envelope; it is on the disk when this returns."""
        work = File(int(due.timestamp() * 1000), time.time_ns(), 1, 1, id_)
        half = self.path / "new" / f"{os.getpid()}.{next(_numbers)}.{id_}"
        self._write(half, body)
        half.rename(self.path / "waiting" / work.name)
        self._sync("waiting")

    def _write(self, file: Path, body: bytes) -> None:
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            self.open()
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as opened:
            opened.write(body)
            opened.flush()
            os.fsync(opened.fileno())

    def _sync(self, name: str) -> None:
        """A rename is on the disk when its folder is."""
        folder = os.open(self.path / name, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def bodies(self, *names: str) -> list[bytes]:
        """The envelopes in some of the folders."""
        return [file.read_bytes() for name in names for file in self._files(name)]

    def claim(self) -> File | None:
        """Take the work that is due first; None where nothing is due."""
        self._recover()
        now = int(time.time() * 1000)
        for file in self._files("waiting"):
            work = File.of(file.name)
            if work.due > now:
                return None
            # Its lease begins before it is claimed: another thread may look for old claims between.
            with suppress(FileNotFoundError):
                os.utime(file)
            if self._move(work, "waiting", "claimed"):
                return work
        return None

    def body(self, work: File) -> bytes:
        """The envelope of claimed work."""
        return (self.path / "claimed" / work.name).read_bytes()

    def touch(self, work: File) -> bool:
        """Hold claimed work for another lease; false where it is somebody else's by now."""
        try:
            os.utime(self.path / "claimed" / work.name)
        except FileNotFoundError:
            return False
        return True

    def done(self, work: File) -> None:
        """Forget finished work."""
        (self.path / "claimed" / work.name).unlink(missing_ok=True)

    def again(self, work: File, after: float, *, attempt: int, deliveries: int) -> None:
        """Let claimed work wait; its next delivery has these counts."""
        due = int((time.time() + after) * 1000)
        to = replace(work, due=due, attempt=attempt, deliveries=deliveries)
        self._move(work, "claimed", "waiting", to)

    def bury(self, work: File) -> None:
        """Keep claimed work that failed permanently."""
        self._move(work, "claimed", "dead")

    def abandon(self, work: File) -> None:
        """Deliver claimed work once more: its worker is gone."""
        self._move(work, "claimed", "waiting", replace(work, deliveries=work.deliveries + 1))

    def _recover(self) -> None:
        oldest = time.time() - self.lease
        for file in self._files("claimed"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < oldest:
                    self.abandon(File.of(file.name))

    def _move(self, work: File, source: str, target: str, to: File | None = None) -> bool:
        """Whether it was there to be moved; of two who try, one succeeds."""
        try:
            (self.path / source / work.name).rename(self.path / target / (to or work).name)
        except FileNotFoundError:
            return False
        return True

    def _files(self, name: str) -> Iterator[Path]:
        folder = self.path / name
        return iter(sorted(folder.iterdir()) if folder.is_dir() else [])
