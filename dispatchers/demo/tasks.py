"""The demo's task: what an application writes."""

from __future__ import annotations

import zlib
from pathlib import Path

from dispatchers import Backoff, current_run, task

from ._index import facts, index_at

__all__ = ["index_file"]


@task(name="demo.index_file", max_attempts=3, backoff=Backoff(initial=0.5), time_limit=60)
def index_file(path: str, index: str) -> None:
    """Read one file, and write into the index what it holds."""
    if is_flaky(path) and current_run().attempt == 1:
        raise OSError("simulated: the disk was busy")
    index_at(index).add(path, facts(Path(path).read_bytes()), current_run().attempt)


def is_flaky(path: str) -> bool:
    """Return true for one file in 25, always the same: reading it fails at first."""
    # By name and not at random, so that every run fails in the same places.
    name = "/".join(Path(path).parts[-2:])
    return zlib.crc32(name.encode()) % 25 == 0
