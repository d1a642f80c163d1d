"""Wake-ups for timers: by a delayed message, or by this process; else the sweep wakes."""

from __future__ import annotations

from datetime import UTC, datetime

from dispatchers._config.api import resolve
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._journal.values import Record
from dispatchers._runtime import clock
from dispatchers._worker.steps import wake_of
from dispatchers._worker.waking import turn_request
from dispatchers.workflows._sweep import is_in_process, sweeper

__all__ = ["wake_later"]

MARGIN = 0.001
"""Seconds added to an instant, which loses its smallest fractions on its way."""


def wake_later(record: Record, at: float) -> None:
    """Ask for a turn at an instant, if its dispatcher can delay so long.

    Args:
        record: The execution.

        at: Seconds since the epoch.
    """
    try:
        dispatcher = resolve(record.dispatcher)
        eta = datetime.fromtimestamp(at + MARGIN, UTC)
    except (ConfigurationError, RejectedError, OverflowError, ValueError, OSError):
        return
    if clock.is_moved_by_hand():
        return
    if is_in_process(dispatcher):
        sweeper.look_at(at)
    elif _can_delay(dispatcher, at - clock.time()):
        # Whatever becomes of it: a wake-up that is lost is the sweep's.
        dispatcher.dispatch(turn_request(wake_of(record, "timer")).replace(eta=eta))


def _can_delay(dispatcher: BaseDispatcher, seconds: float) -> bool:
    can = dispatcher.capabilities
    longest = can.max_delay
    return can.delay and (longest is None or seconds <= longest.total_seconds())
