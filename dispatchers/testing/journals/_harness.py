"""`JournalHarness`: the part of a journal that the suite needs, written by its author."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from dispatchers.journals import LEASE, UNREAD_AFTER, Journal
from dispatchers.testing._abilities import OpeningHarness

ABILITIES: Mapping[str, str] = {
    "processes": "be opened by several processes at once (`opener`)",
    "fork": "be used on both sides of a fork",
    "clock": "have its clock set (`stepped`)",
}
"""What a harness is asked to do, by name; `without` says which of it the journal has not."""


class JournalHarness(OpeningHarness[Journal]):
    """Opens journals of one place, which has no executions yet and which no other test uses.

    All journals of a harness are of the same place: the same file, the same schema.
    """

    _abilities = ABILITIES
    without: ClassVar[Mapping[str, str]] = {}
    """What the journal has not, by the names in `ABILITIES`, with the reason why."""
    lease: float = LEASE
    """Seconds without a renewal after which its journals count a turn as given up. The cases wait
    for it: a second or so, if the journal can be told."""
    unread_after: float = UNREAD_AFTER
    """Seconds after which its journals count a wake-up as lost."""

    @property
    @abstractmethod
    def opener(self) -> Callable[[], Journal]:
        """A function without arguments that opens a journal of this place.

        Other processes get it pickled: a `functools.partial` of the class, say. A journal that
        lives in one process may return the same object each time.
        """

    # What the suite uses.

    def journal(self) -> Journal:
        """Return a newly opened journal, closed at the end of the case."""
        return self._open()

    def _close_one(self, made: Journal) -> None:
        made.close()
