"""`SourceHarness`: the part of a store that the suite needs, written by its author."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import pytest

from dispatchers._errors import nearest
from dispatchers.forwarding import Source

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


class SourceHarness(ABC):
    """Opens sources of one store, which holds nothing yet and which no other test uses.

    All sources of a harness are of the same store: the same file, the same table.
    """

    without: ClassVar[Mapping[str, str]] = {}
    """What the store has not, by the names in `ABILITIES`, with the reason why."""
    every: ClassVar[int] = 11
    """The cases that kill try each so many lines; 1 tries every one, and takes minutes."""

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

    @contextmanager
    def stepped(self, seconds: float) -> Generator[None]:
        """Set the clock that the store reads forward, or backward, until the block ends.

        As it is, this replaces `time.time` in this process.
        """
        real = time.time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + seconds)
            yield

    def close_source(self, source: Source) -> None:  # noqa: B027 - most have nothing to close
        """Close one source that `opener` has opened."""

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give everything back; sources are closed already."""

    # What the suite uses.

    _made: tuple[Source, ...] = ()

    def source(self) -> Source:
        """Return a newly opened source, closed at the end of the case."""
        made = self.opener()
        # A new tuple: the class's own, empty one is shared by all harnesses.
        self._made += (made,)
        return made

    def end(self) -> None:
        """Close every source of the case, then the harness."""
        for source in self._made:
            self.close_source(source)
        self.close()

    def need(self, *abilities: str) -> None:
        """Skip the case where the store lacks one of the abilities; the reason is the harness's.

        Raises:
            KeyError: The ability is unknown.
        """
        for ability in abilities:
            text = ABILITIES[ability]
            if ability in self.without:
                pytest.skip(f"cannot {text}: {self.without[ability]}")
