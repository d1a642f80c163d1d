"""Spans of time in words: `1 min 30 s`."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["spoken"]

MINUTE = 60.0
SIZES = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def spoken(value: float | timedelta) -> str:
    """Return a duration in its two largest units: `1 min 30 s`."""
    total = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if total < 1:
        return f"{total * 1000:.3g} ms" if total else "0 s"
    if total < MINUTE:
        return f"{total:.3g} s"
    # Rounded first: 119.7 s would be written as 1 min 60 s.
    return " ".join(_parts(round(total))[:2])


def _parts(total: int) -> list[str]:
    found: list[str] = []
    for name, size in SIZES:
        count, total = divmod(total, size)
        if count:
            found.append(f"{count} {name}")
    return found
