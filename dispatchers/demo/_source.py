"""Input of the demo: the files of the standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from dispatchers import ConfigurationError

__all__ = ["library_files"]

OTHERS = frozenset({"site-packages", "dist-packages", "__pycache__"})


def library_files(limit: int | None = None) -> list[Path]:
    """The files of every module of the running Python's standard library, in order.

    Raises:
        ConfigurationError: There are none: it was installed without its source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    # Sorted: file systems list in no order, and a limit should take the same files each time.
    found = sorted(
        file for file in root.rglob("*.py") if OTHERS.isdisjoint(file.relative_to(root).parts)
    )
    if not found:
        raise ConfigurationError(f"{root} has no source files: this Python came without them")
    return found[:limit]
