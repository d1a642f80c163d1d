"""Move what waits in one backend to another, for `dispatchers move` and for authors of adapters.

::

    move = Move(claims, to)
    move.run(stopping)       # in this thread, until nothing waits
    print(move.counts)

`Claims` is the old backend: each piece of work is claimed as its own workers claim it, so that it
goes one way although they go on working. The new backend gets the same envelope under the same id,
and the old one forgets a piece of work only once the new one has it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from math import inf
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ErrorCategory
from dispatchers._models.envelope import EnvelopeError, decode, encode
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._runtime.heartbeat import Heartbeat, renewed
from dispatchers._runtime.log import say_once
from dispatchers._tasks.task import catalogue
from dispatchers.forwarding import AWAY, Fate, Forwarder, HeldRow, Settled, Source

__all__ = ["MARK", "Claimed", "Claims", "Counts", "ListClaims", "Move", "Signs", "Window"]

MARK = "move-"
"""The beginning of the names by which moves claim work: others know a killed one by it."""

BATCH = 100
"""Pieces of work that are claimed together: what a killed process has to give back."""
MOST_REFUSED = 1000
"""Pieces of work that are refused before a move ends: until then they are kept from the workers."""
MOST_REASONS = 20
"""Reasons for refusals that are counted one by one."""
OTHERS = "for other reasons"
FULL = frozenset({ErrorCategory.THROTTLED, ErrorCategory.CAPACITY})
NEVER = frozenset(ErrorCategory) - AWAY - FULL
"""What is refused for these is not tried again: an operator waits for the end of the move."""

T = TypeVar("T")


class Claimed(NamedTuple):
    """One piece of work that is claimed."""

    handle: Any
    """What the backend knows the claim by."""
    body: bytes
    """The envelope."""
    attempt: int = 1
    """The attempt that its next run is, from 1."""
    due: float | None = None
    """Seconds since the epoch before which it is not run, as the backend has it; None is at once,
    or what the envelope says."""


class Claims(ABC):
    """Work that waits in a backend, claimed as its own workers claim it.

    Whatever is claimed comes back by itself when this process dies, as the work of a dead worker
    does. What is written here may raise anything: it is tried again.
    """

    lease: float = 60.0
    """Seconds without `renew` after which what is claimed goes back to the workers."""

    @property
    @abstractmethod
    def store(self) -> str:
        """Name the place where the work lies; the same for every dispatcher of that place.

        By its identity where there is one: an address has several spellings.
        """

    @abstractmethod
    def claim(self, limit: int) -> Sequence[Claimed]:
        """Claim at most `limit` pieces of work, in the order of the workers; none is the end.

        Due work comes before what is scheduled for later. Work that has no envelope is left where
        it is.
        """

    @abstractmethod
    def settle(self, gone: Sequence[Claimed], back: Sequence[Claimed]) -> None:
        """Forget what the new backend has, and give back the rest as it was, uncounted.

        Their ids and idempotency keys are free again, so that work can be moved back.
        """

    @abstractmethod
    def recover(self, known: Sequence[Claimed]) -> None:
        """Give back what this process has claimed and does not know of.

        Called where `claim` has raised: its answer may have been lost.

        Args:
            known: All that it does know of.
        """

    def renew(self) -> bool:
        """Tell that this process lives; false where what was claimed has gone back.

        It is then ready to claim again. Called from another thread, too.
        """
        return True

    @property
    def foreign(self) -> int:
        """Number of pieces of work that were seen and left, because they have no envelope."""
        return 0

    @property
    def expects(self) -> bool:
        """Tell whether claims of another move may come back: it gives no sign of life."""
        return False

    def close(self) -> None:  # noqa: B027 - nothing to release is fine
        """Release what is held; all claims are settled."""


class Signs:
    """Signs of life of other moves: one that changes none is dead, as far as is known."""

    def __init__(self) -> None:
        self._first: dict[str, object] = {}

    def is_missing(self, signs: Mapping[str, object]) -> bool:
        """Tell whether one of them is still what it was when it was seen first.

        Args:
            signs: By the names of their claims; those without `MARK` are not looked at.
        """
        seen = {name: sign for name, sign in signs.items() if name.startswith(MARK)}
        return any(self._first.setdefault(name, sign) == sign for name, sign in seen.items())


class Window(NamedTuple):
    """A part of a list that was looked through for work to claim."""

    claimed: Sequence[Claimed]
    passed: int
    """Pieces of work in it that have no envelope, and stay where they are."""
    ended: bool
    """It reached to the end of the list."""


class ListClaims(Claims, Generic[T]):
    """Claims on lists that can be looked into: what has no envelope is passed by, and stays."""

    def __init__(self) -> None:
        self._passed: dict[T, int] = {}
        self._foreign = 0

    @abstractmethod
    def lists(self) -> Sequence[T]:
        """Return the lists in order, those of what is due first."""

    @abstractmethod
    def window(self, part: T, start: int, limit: int) -> Window:
        """Claim what there is among the next `limit` elements behind the first `start`."""

    def claim(self, limit: int) -> Sequence[Claimed]:
        """Claim from the first list that has something."""
        # Once more from the beginning, where workers and producers have moved what was passed.
        for start in (self._passed, {}):
            self._passed = dict(start)
            for part in self.lists():
                if found := self._claim(part, limit):
                    return found
        self._foreign = sum(self._passed.values())
        return ()

    def _claim(self, part: T, limit: int) -> Sequence[Claimed]:
        while True:
            start = self._passed.get(part, 0)
            found = self.window(part, start, limit)
            self._passed[part] = start + found.passed
            if found.claimed or found.ended:
                return found.claimed

    @property
    def foreign(self) -> int:
        """Number that the last look at all lists has passed by."""
        return max(self._foreign, sum(self._passed.values()))


class Counts:
    """Counts of what has become of the work so far."""

    def __init__(self) -> None:
        self.moved = 0
        """Pieces of work that the new backend has, and the old one has forgotten."""
        self.known = 0
        """Those of them that the new backend knew already: an earlier move was killed."""
        self.refused: Counter[str] = Counter()
        """Pieces of work that went back, by the reason of the new backend."""
        self.in_doubt = 0
        """Pieces of work that went back although the new backend may have them too."""

    def refuse(self, why: str) -> None:
        """Count a refusal."""
        known = why in self.refused or len(self.refused) < MOST_REASONS
        self.refused[why if known else OTHERS] += 1


class Move(Source):
    """Hands over what waits in one backend to another.

    Args:
        claims: The old backend.

        to: The new one. Not owned, never closed.

        told: Called with the counts after each batch.

    Raises:
        Exception: What the claims raise when they are closed.
    """

    def __init__(
        self, claims: Claims, to: BaseDispatcher, told: Callable[[Counts], object] = bool
    ) -> None:
        self.lease = claims.lease
        self.counts = Counts()
        self._claims, self._told = claims, told
        self._numbers = count(1)
        # Claimed: not answered yet, or in doubt whether the new backend has it.
        self._held: dict[int, tuple[HeldRow, Claimed]] = {}
        self._doubtful: set[int] = set()
        # To be settled: at once, and the refused at the end.
        self._gone: list[Claimed] = []
        self._back: list[Claimed] = []
        self._refused: list[Claimed] = []
        self._lost = self._is_empty = self._is_unclear = False
        self._renewed = -inf
        self._forwarder = Forwarder(self, to, in_lanes=False, batch=BATCH, never=NEVER)

    def run(self, stopping: Callable[[], bool], *, follow: bool = False) -> None:
        """Move until nothing waits any more, or until `stopping()` says so.

        Args:
            stopping: Asked between batches, and while it waits. What is claimed then goes back.

            follow: Go on with what comes later.
        """
        # All the time, not only while a batch is handed over: what is refused stays claimed.
        with renewed(Heartbeat(self.lead, self.lease / 3)):
            self._forwarder.run(lambda: stopping() or self.is_full, drain=not follow)

    @property
    def is_full(self) -> bool:
        """Tell whether so much is refused that the move ends."""
        return self.counts.refused.total() >= MOST_REFUSED

    @property
    def foreign(self) -> int:
        """Number of pieces of work that are left because they have no envelope."""
        return self._claims.foreign

    # As a source.

    def lead(self) -> bool:
        """Renew the claims, some times within their lease."""
        if monotonic() >= self._renewed + self.lease / 6:
            self._renewed = monotonic()
            self._lost |= not self._claims.renew()
        return True

    def take(
        self, limit: int, *, but_lanes: Collection[str], but_rows: Collection[int]
    ) -> Sequence[HeldRow]:
        """Return what is in doubt and due again, else claim more."""
        del but_lanes
        self._drop_lost()
        self._settle_claims()
        again = [row for seq, (row, _) in self._held.items() if seq not in but_rows]
        if again:
            return again[:limit]
        claimed = self._claimed(limit)
        self._is_empty = not claimed
        rows = [HeldRow(next(self._numbers), _as_it_is_now(each)) for each in claimed]
        self._held |= {row.seq: (row, each) for row, each in zip(rows, claimed, strict=True)}
        return rows

    def _claimed(self, limit: int) -> Sequence[Claimed]:
        if self._is_unclear:
            held = [claimed for _, claimed in self._held.values()]
            self._claims.recover([*held, *self._gone, *self._back, *self._refused])
            self._is_unclear = False
        try:
            return self._claims.claim(limit)
        except BaseException:
            self._is_unclear = True
            self._renewed = -inf  # the lease may be lost: it is renewed before the next try
            raise

    def _drop_lost(self) -> None:
        """Forget what has gone back by itself, because this process slept, say."""
        if self._lost:
            self._lost = False
            self._held, self._doubtful = {}, set()
            self._back, self._refused = [], []

    def settle(self, settled: Sequence[Settled]) -> None:
        """Have the old backend forget what the new one has, and keep or give back the rest."""
        for each in settled:
            self._judge(each)
        self._settle_claims()
        self._told(self.counts)

    def _judge(self, settled: Settled) -> None:
        seq, claimed = settled.row.seq, self._held[settled.row.seq][1]
        if _is_unknown(settled):
            # F1: no other worker may have it before the new backend has answered.
            self._doubtful.add(seq)
            return
        self._doubtful.discard(seq)
        del self._held[seq]
        if settled.fate is Fate.GONE:
            self._gone.append(claimed)
            self.counts.known += _is_known(settled)
        elif settled.fate is Fate.DEAD:
            # Kept until the end: given back now, it would be the next to be claimed again.
            self._refused.append(claimed)
            self.counts.refuse(settled.why)
        else:
            self._back.append(claimed)

    def _settle_claims(self) -> None:
        """Settle what is judged, also what an error has left of the last time."""
        if self._gone or self._back:
            self._claims.settle(self._gone, self._back)
            self.counts.moved += len(self._gone)
            self._gone, self._back = [], []

    def leave(self) -> None:
        """Give back what is claimed."""
        self._drop_lost()
        self.counts.in_doubt += len(self._doubtful)
        self._back += self._refused + [claimed for _, claimed in self._held.values()]
        self._held, self._refused = {}, []
        try:
            self._settle_claims()
        finally:
            self._claims.close()

    def is_empty(self) -> bool:
        """Tell whether nothing waits that could be claimed."""
        if not self._is_empty or self._held:
            return False
        expects = self._claims.expects
        if expects:
            words = "work that a killed move has claimed comes back within %.0f s"
            say_once(self, logging.WARNING, words, self.lease)
        return not expects


def _is_known(settled: Settled) -> bool:
    return settled.response is not None and settled.response.status is DispatchStatus.DUPLICATE


def _is_unknown(settled: Settled) -> bool:
    return settled.response is not None and settled.response.status is DispatchStatus.UNKNOWN


def _as_it_is_now(claimed: Claimed) -> bytes:
    """Return the envelope, with what only the old backend knows: due time and attempts left."""
    if claimed.attempt <= 1 and claimed.due is None:
        return claimed.body
    try:
        request = decode(claimed.body)
    except EnvelopeError:
        return claimed.body  # the forwarder says why it is none
    return encode(request.replace(**_changes(request, claimed)))


def _changes(request: DispatchRequest, claimed: Claimed) -> dict[str, object]:
    changes: dict[str, object] = {}
    if claimed.due is not None and (request.due is None or request.due.timestamp() < claimed.due):
        changes = {"delay": None, "eta": datetime.fromtimestamp(claimed.due, UTC)}
    if claimed.attempt > 1 and (most := _most_attempts(request)) is not None:
        changes["max_attempts"] = max(1, most - claimed.attempt + 1)
    return changes


def _most_attempts(request: DispatchRequest) -> int | None:
    task = catalogue.find(request.task)
    return request.max_attempts or (None if task is None else task.max_attempts)
