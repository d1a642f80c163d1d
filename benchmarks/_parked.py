"""Park executions in a process of its own; prints what that takes, as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path

import dispatchers

from .flows import parked


def resident() -> int:
    """Bytes of memory that the process takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(path: str) -> int:
    """Return how many files of that name, or that begin with it, the process has open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder itself, closed since
            found += str(link.readlink()).startswith(path)
    return found


def _taken(path: str) -> tuple[int, int, int]:
    return resident(), threading.active_count(), open_files(path)


def main(path: str, number: int) -> None:
    options = {"workflows": f"sqlite:{path}", "targets": {"b": {"default": "inline"}}}
    dispatchers.configure(options, target="b")
    for each in range(10):
        parked.dispatch(each).raise_for_error()
    before = _taken(path)
    for each in range(number):
        parked.dispatch(each).raise_for_error()
    after = _taken(path)
    taken = [late - early for late, early in zip(after, before, strict=True)]
    print(json.dumps(dict(zip(("memory", "threads", "files"), taken, strict=True))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
