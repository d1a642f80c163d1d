"""The parts of POSIX that some workers need, and this system may lack."""

from __future__ import annotations

import os
import signal
import sys

from dispatchers._runtime.importing import is_importable

__all__ = ["lacks_posix"]


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
