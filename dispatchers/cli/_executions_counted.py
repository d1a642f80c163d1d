"""Executions that have not ended, counted by the journal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from dispatchers._config.api import current
from dispatchers._errors import ConfigurationError
from dispatchers._journal.loading import AUTO, journal
from dispatchers._journal.values import Count

from ._executions_found import asked

__all__ = ["Counted", "counted"]


class Counted(NamedTuple):
    """Counts of executions."""

    counts: Sequence[Count] = ()
    failure: str | None = None
    """Why they are not known."""

    def of(self, aliases: Sequence[str]) -> list[Count]:
        """Return those of executions that are woken through one of some dispatchers."""
        return [each for each in self.counts if each.dispatcher in aliases]


def counted(timeout: float) -> Counted:
    """Count them; without a journal, or with one that does not count, there are none to show.

    Args:
        timeout: Seconds that the journal has.
    """
    try:
        count = getattr(journal(), "count", None)
    except ConfigurationError as exc:
        return Counted(failure=None if current().workflows == AUTO else str(exc))
    if count is None:
        return Counted()
    try:
        return Counted(asked(partial(count, timeout=timeout)))
    except ConfigurationError as exc:
        return Counted(failure=str(exc))
