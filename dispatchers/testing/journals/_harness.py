"""`JournalHarness`: the part of a journal that the suite needs, written by its author."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import pytest

from dispatchers._errors import nearest
from dispatchers.journals import LEASE, UNREAD_AFTER, Journal

ABILITIES: Mapping[str, str] = {
    "processes": "be opened by several processes at once (`opener`)",
    "fork": "be used on both sides of a fork",
    "clock": "have its clock set (`stepped`)",
}
"""What a harness is asked to do, by name; `without` says which of it the journal has not."""


class JournalHarness(ABC):
    """Opens journals of one place, which has no executions yet and which no other test uses.

    All journals of a harness are of the same place: the same file, the same schema.
    """

    without: ClassVar[Mapping[str, str]] = {}
    """What the journal has not, by the names in `ABILITIES`, with the reason why."""
    lease: float = LEASE
    """Seconds without a renewal after which its journals count a turn as given up. The cases wait
    for it: a second or so, if the journal can be told."""
    unread_after: float = UNREAD_AFTER
    """Seconds after which its journals count a wake-up as lost."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        # When the class is made: a misspelt name would skip nothing, and fail the cases instead.
        for ability in cls.without:
            if ability not in ABILITIES:
                raise TypeError(
                    f"{cls.__name__}.without: no ability {ability!r}{nearest(ability, ABILITIES)}"
                )

    @property
    @abstractmethod
    def opener(self) -> Callable[[], Journal]:
        """A function without arguments that opens a journal of this place.

        Other processes get it pickled: a `functools.partial` of the class, say. A journal that
        lives in one process may return the same object each time.
        """

    @contextmanager
    def stepped(self, seconds: float) -> Generator[None]:
        """Set the clock that the journal reads forward, or backward, until the block ends.

        As it is, this replaces `time.time` in this process.
        """
        real = time.time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + seconds)
            yield

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give everything back; journals are closed already."""

    # What the suite uses.

    _made: tuple[Journal, ...] = ()

    def journal(self) -> Journal:
        """Return a newly opened journal, closed at the end of the case."""
        made = self.opener()
        # A new tuple: the class's own, empty one is shared by all harnesses.
        self._made += (made,)
        return made

    def end(self) -> None:
        """Close every journal of the case, then the harness."""
        for journal in self._made:
            journal.close()
        self.close()

    def need(self, *abilities: str) -> None:
        """Skip the case where the journal lacks one of the abilities; the reason is the harness's.

        Raises:
            KeyError: The ability is unknown.
        """
        for ability in abilities:
            text = ABILITIES[ability]
            if ability in self.without:
                pytest.skip(f"cannot {text}: {self.without[ability]}")
