"""The options of `rq`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dispatchers import BackendOptions


class RQBaseOptions(BackendOptions):
    """Options of jobs and workers; a backend that is made of this one has them too."""

    lease: float = Field(default=30.0, ge=1)
    """Seconds without a sign of life after which the work of a dead worker goes back."""
    keep: int = Field(default=500, ge=0)
    """Seconds that a finished job, and the key of its work, is remembered; RQ's `result_ttl`."""
    failure_ttl: int = Field(default=31_536_000, gt=0)
    """Seconds that a failed job is kept, its envelope with it; RQ's own is this year."""
    horses: bool = True
    """Run each job in a process of its own, as RQ's `Worker` does; off, as its `SimpleWorker`."""
    unpickle: bool = False
    """Run RQ's own pickled jobs too: anything that writes to this Redis can then run any code."""


class RQOptions(RQBaseOptions):
    """Options of `rq`: the Redis that RQ's queues are in."""

    connection: object = None
    """The Redis client: `package.module:attribute`, or in code the object itself."""
    url: str | None = Field(default=None, min_length=1)
    """The address of the Redis, in place of `connection`."""
    is_async: bool = True
    """RQ's setting of that name: off, work is run in the call, and no Redis is contacted."""
    serializer: Literal["json", "pickle"] = "json"
    """The format of jobs for RQ's own workers: `pickle` is RQ's default. Ours read both."""
