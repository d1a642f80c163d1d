"""Events from outside, as they travel: a signal or a cancellation, on a message for a turn."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from dispatchers._journal.values import EntryKind

__all__ = ["KINDS", "Event"]


class Event(BaseModel):
    """A signal or a cancellation."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: Literal["signal", "cancel"]
    """Which."""
    name: str = ""
    """The signal's name, or the reason of a cancellation."""
    body: str | None = None
    """The signal's value as JSON text."""


KINDS = {"signal": EntryKind.SIGNAL, "cancel": EntryKind.CANCEL}
