"""Live code of parked executions, kept so that the next turn need not replay them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Turn
from dispatchers._runtime.fork import renew_after_fork
from dispatchers.workflows._replay import Replay

__all__ = ["Live", "LiveCache", "live"]

MAX_EXECUTIONS = 1_000
MAX_SIZE = 64 << 20
"""Bytes that all of it may take, as far as they can be told."""
SIZE = 8 << 10
"""Bytes that code takes beside the values that it was fed."""


@dataclass(slots=True)
class Live:
    """The code of an execution, and how far it has been fed."""

    journal: Journal
    """Where the execution is recorded."""
    replay: Replay
    generation: int
    """Of the entries that it was fed."""
    fence: int = -1
    """Of the turn after which it was kept: it is as recorded only if that was the last one."""
    owner: str = ""
    """Of the same turn."""
    seen: int = 0
    """The place of the last entry that it was fed."""
    size: int = SIZE
    """Bytes, estimated."""
    waked_at: float | None = None
    """The instant for which a wake-up is under way."""

    def is_of(self, turn: Turn) -> bool:
        """Tell whether a turn can go on with it: what it asked for is recorded, and no more."""
        # Where the worker records a turn later, another of the same fence may have been first.
        if turn.follows not in (None, self.owner):
            return False
        return (self.generation, self.fence + 1) == (turn.record.generation, turn.fence)


class LiveCache:
    """Live code by execution; what was used longest ago is closed first.

    Args:
        executions: At most so many.

        size: At most so many bytes, estimated.
    """

    def __init__(self, executions: int = MAX_EXECUTIONS, size: int = MAX_SIZE) -> None:
        self._executions = executions
        self._size = size
        self._live: OrderedDict[str, Live] = OrderedDict()
        self._total = 0
        self._lock = threading.RLock()
        renew_after_fork(self)

    def take(self, execution: str, journal: Journal) -> Live | None:
        """Take the code out: one turn at a time runs it."""
        with self._lock:
            found = self._live.pop(execution, None)
            if found is None:
                return None
            self._total -= found.size
        if found.journal is journal:
            return found
        found.replay.close()
        return None

    def put(self, execution: str, live: Live) -> None:
        """Keep code for the next turn, and close what there is no room for."""
        with self._lock:
            closing = [old for old in (self._live.pop(execution, None),) if old is not None]
            self._live[execution] = live
            self._total += live.size - sum(old.size for old in closing)
            closing += self._crowded_out()
        # Outside of the lock: closing runs the `finally` blocks of workflows.
        for old in closing:
            old.replay.close()

    def _crowded_out(self) -> list[Live]:
        out = []
        while len(self._live) > self._executions or self._total > self._size:
            _, old = self._live.popitem(last=False)
            self._total -= old.size
            out.append(old)
        return out

    def clear(self) -> None:
        """Close all: for tests, and for workers that end."""
        with self._lock:
            closing, self._live, self._total = list(self._live.values()), OrderedDict(), 0
        for old in closing:
            old.replay.close()

    def __len__(self) -> int:
        return len(self._live)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()


live = LiveCache()
