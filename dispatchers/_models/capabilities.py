"""Capabilities of a backend, readable without network."""

from __future__ import annotations

from datetime import timedelta

from dispatchers._errors import public
from dispatchers._models.base import Model

OPTIONS = ("delay", "priority", "expires", "time_limit", "deduplicate")
"""What a request may need: the capability of the same name must be true, or waived."""


@public
class Capabilities(Model):
    """Capabilities: of a class at most, of an instance exactly."""

    delay: bool = False
    """Work may be held back until `delay` or `eta`."""
    max_delay: timedelta | None = None
    """The longest delay that is safe; None means no limit."""
    priority: bool = False
    """Work of a higher priority is run first."""
    expires: bool = True
    """Work that is late is not run. Every worker of ours sees to it."""
    time_limit: bool = True
    """`current_run()` has `time_left`, and `should_stop` then; an async run is cancelled."""
    kills: bool = False
    """A synchronous run that overruns its time limit is stopped too, and counts as failed."""
    retries: bool = False
    """Failed work is tried again up to `max_attempts`, with its back-off."""
    deduplicate: bool = False
    """The backend itself recognises a key that it already has."""
    queues: bool = False
    """Work of different queues can be run by different workers."""
    batch: bool = False
    """`dispatch_many` costs one round trip, or a few, for all its items."""
    confirmed: bool = False
    """`ACCEPTED` is the backend's own word that it has the work."""
    durable: bool = False
    """Accepted work survives the death of every process involved."""
    runs_here: bool = False
    """The work runs in this process during the call: `EXECUTED` or `FAILED`."""
    worker: bool = False
    """`dispatchers worker` can start a worker for it."""
    dead_letters: bool = False
    """The backend keeps work that failed permanently, for listing and replay."""
    stats: bool = False
    """`stats()` tells how much waits, runs and is dead, queue by queue."""
    max_size: int | None = None
    """The largest envelope in bytes; None means no limit."""

    def supports(self, option: str) -> bool:
        """Tell whether a request may use an option such as `delay`."""
        return bool(getattr(self, option))
