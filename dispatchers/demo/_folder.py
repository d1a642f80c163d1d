"""The folder that the demo works in: where it is, whose it is, what is in it."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import stat
import sys
import tempfile
import time
from pathlib import Path

from dispatchers import ConfigurationError

from ._index import Index

__all__ = ["Folder", "await_end", "chosen", "ours_only"]

CONFIGURATION = """\
# Written by `dispatchers demo`. Another backend is another line here, and nothing else.
target = "demo"
modules = ["dispatchers.demo.tasks"]

[targets.demo.default]
backend = "sqlite"
path = {path}
lease = 5.0
"""
POISON = b"this is no Python source: \0\0\0\n"
ORPHAN_WAIT = 10.0
"""Seconds to wait for the worker of a run that was killed; it ends within its grace."""


class Folder:
    """The files of the demo.

    Args:
        path: The folder; it exists and is ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configuration = path / "dispatchers.toml"
        self.queue = path / "queue.sqlite3"
        self.log = path / "worker.log"
        self.pid = path / "worker.pid"
        self.poisoned = path / "poisoned.py"
        self.index_file = path / "index.sqlite3"
        self.index = Index(str(self.index_file))

    def prepare(self) -> None:
        """Write what a run needs; what an interrupted run has left stays."""
        self.index.create()
        self.poisoned.write_bytes(POISON)
        # A JSON string is a TOML string too, backslashes of Windows included.
        text = CONFIGURATION.format(path=json.dumps(str(self.queue)))
        self.configuration.write_text(text, encoding="utf-8")

    def unfinished(self) -> int | None:
        """Return the files that an interrupted run has indexed, or None."""
        if not (self.index_file.exists() and self.queue.exists()):
            return None
        self.index.create()
        # Noted in the file, so that it survives a `kill -9` of the demo.
        return None if self.index.noted("finished") else self.index.count()

    def clear(self) -> None:
        """Remove what an earlier run has left: its own files, nothing else."""
        # Its worker may still write into the files that are removed.
        await_end(self.pid)
        self.index.close()
        for file in (self.queue, self.index_file):
            for suffix in ("", "-wal", "-shm"):
                # With the files that SQLite keeps beside it: they belong to the removed one.
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)


def await_end(pid: Path) -> None:
    """Wait until the worker of a run that was killed has noticed and ended.

    Args:
        pid: The file with its process id.
    """
    until = time.monotonic() + ORPHAN_WAIT
    while time.monotonic() < until and _is_alive(pid):
        time.sleep(0.05)


def _is_alive(pid: Path) -> bool:
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        return False
    try:
        os.kill(int(pid.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def chosen(given: str | None) -> Folder:
    """The folder that was named, or one of this user's own in the temporary folder.

    Raises:
        ConfigurationError: It cannot be used.
    """
    path = Path(given).absolute() if given else Path(tempfile.gettempdir(), _name())
    try:
        # The temporary folder is shared: others must not read or replace what is in ours.
        path.mkdir(mode=0o700, parents=given is not None, exist_ok=True)
        # Not `stat`: a link that another user has put there leads anywhere.
        facts = path.lstat()
    except OSError as exc:
        raise ConfigurationError(
            f"cannot work in {path}: {exc.strerror}: name another --dir"
        ) from exc
    if given is None and not _ours(facts):
        raise ConfigurationError(f"{path} belongs to another user: name another folder by --dir")
    return Folder(path)


def _name() -> str:
    who = ""
    with contextlib.suppress(OSError, KeyError, ImportError):
        who = f"-{os.getuid()}" if hasattr(os, "getuid") else f"-{getpass.getuser()}"
    return f"dispatchers-demo{who}"


def _ours(facts: os.stat_result) -> bool:
    """Return true for a folder of this user's; the temporary folder is everyone's to write."""
    own = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
    return own and stat.S_ISDIR(facts.st_mode)


def ours_only(configuration: Path) -> dict[str, str | None]:
    """Return the variables by which only this file configures: nothing around it."""
    others = dict.fromkeys(name for name in os.environ if name.upper().startswith("DISPATCHERS_"))
    return {**others, "DISPATCHERS_CONFIG": str(configuration)}
