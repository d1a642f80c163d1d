"""The time that is left for what bounded connections do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

MARK = "dispatchers_before_sending"
"""An attribute of exceptions that came before anything was sent."""
MIN_TIMEOUT = 0.001
"""Seconds; a socket without a timeout would wait for ever."""
DEFAULT_TIMEOUT = 5.0
"""Seconds for what is done outside of `within`; redis-py's own default."""

_until: ContextVar[float | None] = ContextVar("dispatchers_redis_until", default=None)


@contextmanager
def within(seconds: float) -> Generator[None]:
    """Limit everything that bounded connections do in the block.

    Args:
        seconds: From now; for all commands of the block together.
    """
    token = _until.set(monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def time_left() -> float:
    """Return the seconds that are left of the `within` around this; always above 0."""
    until = _until.get()
    return DEFAULT_TIMEOUT if until is None else max(until - monotonic(), MIN_TIMEOUT)


def is_over() -> bool:
    """Return True once the time of the `within` around this has passed."""
    until = _until.get()
    return until is not None and monotonic() >= until


def is_before_sending(exc: BaseException | None) -> bool:
    """Return True if an exception, or a cause of it, came while connecting."""
    while exc is not None:
        if getattr(exc, MARK, False):
            return True
        # redis-py raises its own exception in place of the one that was marked.
        exc = exc.__cause__ or exc.__context__
    return False
