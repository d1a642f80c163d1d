"""Spans of time as people write and read them: `90s`, `5m`, `1h30m`."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

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
    if NUMBER.fullmatch(text):
        return float(text)
    if not WHOLE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: write 90s, 5m, 1h30m, 250ms, 2d, or a number of seconds"
        )
    return sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))


def duration(text: str) -> timedelta:
    """The same as a timedelta.

    Raises:
        argparse.ArgumentTypeError: It is no duration, or a longer one than there are.
    """
    try:
        return timedelta(seconds=seconds(text))
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than any calendar") from None


def spoken(value: float | timedelta) -> str:
    """`250 ms`, `2 s`, `1 min 30 s`, `2 h`, `3 d 4 h`: the two largest units that say something."""
    total = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if total < 1:
        return f"{total * 1000:.3g} ms" if total else "0 s"
    if total < UNITS["m"]:
        return f"{total:.3g} s"
    return " ".join(_parts(round(total))[:2])


def _parts(total: int) -> list[str]:
    found: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, total = divmod(total, size)
        if count:
            found.append(f"{count} {name}")
    return found
