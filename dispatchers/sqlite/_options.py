"""The options of `sqlite`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dispatchers._models.options import BackendOptions
from dispatchers._models.paths import FilePath
from dispatchers.sqlite import SQLiteStore, Synchronous

__all__ = ["SQLiteOptions"]


def _file(path: str) -> str:
    if path.startswith(":memory:"):
        raise ValueError("has to name a file that other processes can open")
    return path


class SQLiteOptions(BackendOptions):
    """Options of `sqlite`."""

    path: Annotated[FilePath, AfterValidator(_file), Field(min_length=1)]
    """The file, created on first use, readable by its owner only; its directory has to exist."""
    synchronous: Synchronous = "full"
    """`full` survives a loss of power; `normal` is faster and survives the loss of processes."""
    lease: float = Field(default=60.0, ge=1, le=86400)
    """Seconds without a sign of life after which a worker's work is given to others."""
    retention: float = Field(default=86400.0, ge=0)
    """Seconds for which ids and keys of finished work are remembered as duplicates."""


def open_store(options: SQLiteOptions) -> SQLiteStore:
    """The store that the options describe; its file is opened on first use."""
    return SQLiteStore(
        options.path,
        synchronous=options.synchronous,
        lease=options.lease,
        retention=options.retention,
    )
