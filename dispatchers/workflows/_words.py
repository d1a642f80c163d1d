"""Words for commands and places, in the messages that people read."""

from __future__ import annotations

import asyncio
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from dispatchers._journal.values import EntryKind

OURS = (str(Path(__file__).parents[1]), str(Path(asyncio.__file__).parent))
"""Folders whose frames are not the workflow's own code."""

_KINDS = {
    EntryKind.STEP: "step",
    EntryKind.LOCAL: "local",
    EntryKind.CHILD: "child",
    EntryKind.SEND: "dispatch of",
    EntryKind.MARK: "patched",
}


def command(kind: EntryKind, name: str | None) -> str:
    """Return `step shop.charge`, `timer until 2026-12-24 18:00:00 UTC` ..."""
    if kind is EntryKind.TIMER:
        return f"timer until {instant(float(name or math.inf))}"
    return f"{_KINDS.get(kind, kind.name.lower())} {name}"


def instant(seconds: float) -> str:
    """Return an instant as people write it."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds!r} s since the epoch"


def place() -> str:
    """Return file, line and function of the workflow's code that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    if frame is None:
        return "its code"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
