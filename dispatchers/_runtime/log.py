"""The library's log: one logger, and records that no handler can turn into an exception."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Generator, Mapping
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["is_said", "kept_enabled", "say", "say_once"]

log = logging.getLogger("dispatchers")


@contextlib.contextmanager
def kept_enabled() -> Generator[None]:
    """Undo what `dictConfig` does by default: it disables each logger that it does not name."""
    was_disabled = log.disabled
    try:
        yield
    finally:
        log.disabled = was_disabled


INTERVAL = 60.0
"""Seconds in which `say_once` says a thing once."""


def say(
    level: int,
    message: str,
    *values: object,
    extra: Mapping[str, object] | None = None,
    exc_info: BaseException | None = None,
) -> None:
    """Log one record; a handler or a filter that raises changes nothing (C1)."""
    with contextlib.suppress(Exception):
        if not log.isEnabledFor(level):
            return
        # Not by `log.log`, which looks for its caller through all frames of `logging`: a worker
        # writes one record for each run, of which that would be a third.
        place = sys._getframe(1)
        file, function = place.f_code.co_filename, place.f_code.co_name
        exc = None if exc_info is None else (type(exc_info), exc_info, exc_info.__traceback__)
        log.handle(
            log.makeRecord(
                log.name, level, file, place.f_lineno, message, values, exc, function, extra
            )
        )


def is_said(level: int) -> bool:
    """Tell whether a record of this level would be written; never raises an `Exception`."""
    try:
        return log.isEnabledFor(level)
    except Exception:  # noqa: BLE001 - C1: `logging.setLoggerClass` takes any class
        return True


_said: WeakKeyDictionary[Any, dict[object, tuple[float, int]]] = WeakKeyDictionary()


def say_once(
    owner: object,
    level: int,
    message: str,
    *values: object,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a condition that recurs: one record per interval, the next with the count.

    Args:
        owner: The object whose condition it is; not kept alive. One that cannot be referred to
            weakly has each record written.

        level: Of `logging`.

        message: With `%s` for the values.

        values: For the message. A record with other values is another condition.

        extra: Attributes of the record.
    """
    # Counted although nothing may be written, so that the next record has the true number.
    repeated = _repeated(owner, message, values)
    if repeated is None:
        return
    if repeated:
        message, values = f"{message} (%d times more since)", (*values, repeated)
    with contextlib.suppress(Exception):
        log.log(level, message, *values, extra=extra, stacklevel=2)


def _repeated(owner: object, message: str, values: tuple[object, ...]) -> int | None:
    """Return how often it was left out since the last record; None leaves it out again."""
    try:
        # By text: each error is an object of its own, which would keep its frames alive here.
        condition = (message, *map(str, values))
        said = _said.setdefault(owner, {})
        since, count = said.get(condition, (-INTERVAL, 0))
        now = monotonic()
        if now - since < INTERVAL:
            said[condition] = since, count + 1
            return None
        said[condition] = now, 0
    except Exception:  # noqa: BLE001 - an owner without weak references, a value without text
        return 0
    return count
