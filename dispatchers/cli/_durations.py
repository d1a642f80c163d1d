"""Spans of time as people write and read them: `90s`, `5m`, `1h30m`."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

from dispatchers._runtime.durations import spoken

__all__ = ["duration", "seconds", "spoken"]

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
WHOLE = re.compile(rf"(?:{PART.pattern})+", re.ASCII)
NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def seconds(text: str) -> float:
    """Seconds from `90`, `90s`, `5m`, `1h30m`, `250ms`, `2d` or `1w`.

    Raises:
        argparse.ArgumentTypeError: It is none of these.
    """
    # A plain number is seconds, as in the configuration.
    if NUMBER.fullmatch(text):
        return float(text)
    if not WHOLE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration: write 90s, 5m, 1h30m, 250ms, 2d, or a number of seconds"
        )
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))


def duration(text: str) -> timedelta:
    """Parse a duration as a timedelta.

    Raises:
        argparse.ArgumentTypeError: It is not a duration, or exceeds the calendar.
    """
    try:
        return timedelta(seconds=seconds(text))
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than any calendar") from None
