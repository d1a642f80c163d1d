"""Protocol and options of a worker, for `dispatchers worker`."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from dispatchers._errors import public
from dispatchers._models.base import Model


@public
class WorkerOptions(Model):
    """Options of a worker, from the command line or code."""

    concurrency: int = Field(default=1, ge=1, le=1024)
    """How many runs at once."""
    queues: tuple[str, ...] = ()
    """The queues to serve; none named are all."""
    modules: tuple[str, ...] = ()
    """Modules to import, so that the tasks are registered."""
    grace: float = Field(default=30.0, ge=0)
    """Seconds that running handlers get to finish once the worker is told to stop."""
    drain: bool = False
    """Stop when there is nothing left to do, instead of waiting for more; timers and signals of
    parked executions are not waited for."""


class Worker(Protocol):
    """A worker that runs one dispatcher's work."""

    def run(self) -> int:
        """Work until stopped, by `stop`, SIGTERM or SIGINT.

        Returns:
            The exit code: 0 after a graceful stop.
        """
        ...

    def stop(self) -> None:
        """Take no more work, finish what runs, then return from `run`. Safe in signal handlers."""
        ...
