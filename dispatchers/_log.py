"""The library's log: one logger, and records that no handler can turn into an exception."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping

__all__ = ["log", "say"]

log = logging.getLogger("dispatchers")


def say(
    level: int, message: str, *values: object, extra: Mapping[str, object] | None = None
) -> None:
    """Log one record; a handler or a filter that raises changes nothing (C1)."""
    with contextlib.suppress(Exception):
        log.log(level, message, *values, extra=extra, stacklevel=2)
