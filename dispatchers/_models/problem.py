"""A finding of the start-up check."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Problem(NamedTuple):
    """Something that the start-up check found."""

    alias: str
    """The dispatcher's, or nothing if it concerns the whole configuration."""
    backend: str
    """The backend's name, as far as it is known."""
    severity: Literal["error", "warning"]
    """Errors make `check` raise."""
    message: str
    """What, where, and the cure."""
