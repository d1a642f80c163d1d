"""The options of `DispatcherBackend`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Options"]


class Options(BaseModel):
    """The `OPTIONS` of a backend in `settings.TASKS`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dispatcher: str = "default"
    """The alias in `settings.DISPATCHERS` that gets the work."""
    on_commit: bool = False
    """Hand over after the commit of the transaction that `enqueue` is called in."""
    results: bool = True
    """Keep results in the database; without, they are known to the call that runs the work."""
    raise_errors: bool = False
    """Raise `DispatchError` where the work could not be handed over, besides the FAILED result."""
    lease: float = Field(default=60.0, gt=0)
    """Seconds without renewal after which a running worker counts as killed."""
    lost_after: float = Field(default=3600.0, ge=0)
    """Seconds after the lease until work that was not delivered again is read as FAILED."""
    keep: float = Field(default=14 * 86400.0, gt=0)
    """Seconds that a result is kept after its end."""
