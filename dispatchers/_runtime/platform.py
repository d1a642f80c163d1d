"""The parts of POSIX that some workers need, and this system may lack."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dispatchers._runtime.importing import is_importable

__all__ = ["lacks_posix", "passing_filesystem", "remote_filesystem"]

PASSING = frozenset({"aufs", "overlay", "ramfs", "tmpfs"})
"""File systems whose content is gone with the container or the machine's restart."""
REMOTE = frozenset(
    {"afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "lustre", "nfs", "nfs4", "smb3"}
)
"""File systems that machines share, which have no memory in common: SQLite's log needs it."""
MOUNTS = "/proc/self/mountinfo"
"""The mounts of this process (proc(5)); other systems than Linux have no such file."""


def lacks_posix() -> str | None:
    """Say what this system lacks that a worker with child processes needs; None if nothing."""
    needed = (
        ("os.fork", hasattr(os, "fork")),
        ("SIGTERM", hasattr(signal, "SIGTERM")),
        ("POSIX file locks", is_importable("fcntl")),
    )
    missing = [name for name, there in needed if not there]
    if not missing and sys.platform != "win32":
        return None
    return f"{sys.platform} has no {', '.join(missing) or 'pipes that can be waited for'}"


def passing_filesystem(path: str, table: str = MOUNTS) -> str | None:
    """Return the kind of file system that a path is on, if it does not outlive a container."""
    kind = _filesystem(path, table)
    return kind if kind in PASSING else None


def remote_filesystem(path: str, table: str = MOUNTS) -> str | None:
    """Return the kind of file system that a path is on, if other machines may use it as well."""
    kind = _filesystem(path, table)
    return kind if kind in REMOTE else None


def _filesystem(path: str, table: str) -> str | None:
    try:
        lines = Path(table).read_text(errors="replace").splitlines()
    except OSError:
        return None
    mounts = sorted(filter(None, map(_mount, lines)), key=lambda each: len(each[0]))
    found = [kind for point, kind in mounts if Path(path).is_relative_to(point)]
    # Of several the longest; of those at one place the last, which covers the others.
    return found[-1] if found else None


def _mount(line: str) -> tuple[str, str] | None:
    """Return where a line of the table mounts, and what."""
    before, dash, after = line.partition(" - ")
    if not dash:
        return None
    # Blanks and the like are written as octal numbers.
    point = before.split()[4].encode().decode("unicode_escape")
    return point, after.split()[0]
