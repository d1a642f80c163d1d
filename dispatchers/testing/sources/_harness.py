"""`SourceHarness`: the part of a store that the suite needs, written by its author."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from dispatchers.forwarding import Source
from dispatchers.testing._abilities import OpeningHarness

__all__ = ["ABILITIES", "PutRow", "SourceHarness"]

ABILITIES: Mapping[str, str] = {
    "lanes": "keep the lane of each row",
    "deduplicate": "keep the demand that the backend recognises duplicates",
    "leader": "be drained by one process at a time (`lead`)",
    "processes": "be opened by several processes at once (`opener`)",
    "fork": "be used on both sides of a fork",
    "clock": "have its clock set (`stepped`)",
    "transactions": "say whether a transaction is open (`in_transaction`)",
}
"""What a harness is asked to do, by name; `without` says which of it the store has not."""


class PutRow(NamedTuple):
    """An envelope that a case puts into the store."""

    id: str
    """The id of the request, also where the body is no envelope."""
    task: str
    lane: str
    body: bytes
    deduplicate: bool = False


class SourceHarness(OpeningHarness[Source]):
    """Opens sources of one store, which holds nothing yet and which no other test uses.

    All sources of a harness are of the same store: the same file, the same table.
    """

    _abilities = ABILITIES
    without: ClassVar[Mapping[str, str]] = {}
    """What the store has not, by the names in `ABILITIES`, with the reason why."""
    every: ClassVar[int] = 11
    """The cases that kill try each so many lines; 1 tries every one, and takes minutes."""

    @property
    @abstractmethod
    def opener(self) -> Callable[[], Source]:
        """A function without arguments that opens the store, as another process does.

        Other processes get it pickled: a `functools.partial` of a function of a module, say. Its
        sources have a short `lease`, for which the cases wait: a second or less.
        """

    @abstractmethod
    def put(self, rows: Sequence[PutRow]) -> None:
        """Put envelopes into the store, in this order, and commit them."""

    @abstractmethod
    def dead(self) -> list[bytes]:
        """Return the bodies of the dead letters, the oldest first."""

    def in_transaction(self, source: Source) -> bool:
        """Tell whether a source has a transaction open, be it one that only reads."""
        raise NotImplementedError(f"{type(self).__name__} needs `in_transaction`")

    def close_source(self, source: Source) -> None:
        """Close one source that `opener` has opened."""

    # What the suite uses.

    def source(self) -> Source:
        """Return a newly opened source, closed at the end of the case."""
        return self._open()

    def _close_one(self, made: Source) -> None:
        self.close_source(made)
