"""The options of `DispatcherBackend`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatchers.frameworks import nearest

__all__ = ["Options", "wrong"]

Seconds = Annotated[float, Field(le=100 * 365 * 86400)]
"""A time that can be added to today's date; a hundred years is for ever."""


class Options(BaseModel):
    """The `OPTIONS` of a backend in `settings.TASKS`."""

    # Strict, as in `settings.DISPATCHERS`: a text is no number, and neither is True.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    dispatcher: str = "default"
    """The alias in `settings.DISPATCHERS` that gets the work."""
    on_commit: bool = False
    """Hand over after the commit of the transaction that `enqueue` is called in."""
    results: bool = True
    """Keep results in the database; without, they are known to the call that runs the work."""
    raise_errors: bool = False
    """Raise `DispatchError` where the work could not be handed over, besides the FAILED result."""
    lease: Seconds = Field(default=60.0, gt=0)
    """Seconds without renewal after which a running worker counts as killed."""
    lost_after: Seconds = Field(default=3600.0, ge=0)
    """Seconds after the lease until work that was not delivered again is read as FAILED."""
    keep: Seconds = Field(default=14 * 86400.0, gt=0)
    """Seconds that a result is kept after its end."""


def wrong(exc: ValidationError) -> str:
    """Return what is wrong with which fields, without their values."""
    return "; ".join(_told(each["type"], each["loc"], each["msg"]) for each in exc.errors())


def _told(kind: str, place: tuple[int | str, ...], words: str) -> str:
    if not place:
        return "they must be a mapping"
    if kind == "extra_forbidden":
        return f"{place[0]}: unknown option{nearest(str(place[0]), Options.model_fields)}"
    return f"{place[0]}: {words}"
