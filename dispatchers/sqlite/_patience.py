"""Waiting for a file that other processes write to."""

from __future__ import annotations

import random
import time

from ._turn import Turn

__all__ = ["Crowd", "Patience"]

# Seconds between two tries. A commit takes 0.1 ms on a quick disk, 10 ms on a slow one.
_SHORTEST = 0.0003
_LONGEST = 0.003

# Seconds for which a process that saw others wait looks for them before each write, and after which
# one that did not looks again: a process that writes without a pause would never see them.
_REMEMBERED = 1.0
_LOOK = 0.005


class Crowd:
    """What one process knows of others that want to write.

    Args:
        path: The file.
    """

    __slots__ = ("_looked", "_seen", "turn")

    def __init__(self, path: str) -> None:
        self._seen = self._looked = float("-inf")
        self.turn = Turn(path)

    def seen(self, now: float) -> None:
        """Another process was in the way."""
        self._seen = now

    @property
    def waits(self) -> bool:
        """Whether somebody waits already, as far as that is worth looking."""
        now = time.monotonic()
        if now - self._seen > _REMEMBERED and now - self._looked < _LOOK:
            return False
        self._looked = now
        if not self.turn.others_wait():
            return False
        self._seen = now
        return True


class Patience:
    """One wait, until a deadline. To be `over` in any case.

    Args:
        crowd: What is known of others.

        deadline: The instant of `time.monotonic()` at which it ends.
    """

    __slots__ = ("_crowd", "_deadline", "_since")

    def __init__(self, crowd: Crowd, deadline: float) -> None:
        self._crowd = crowd
        self._deadline = deadline
        self._since = time.monotonic()

    def wait(self) -> bool:
        """Wait until it is worth a try; false if the deadline has passed."""
        while (left := self._deadline - (now := time.monotonic())) > 0:
            self._crowd.seen(now)
            time.sleep(min(left, random.uniform(_SHORTEST, _LONGEST)))  # noqa: S311 - no secret
            if self._crowd.turn.comes(time.monotonic() - self._since):
                return True
        return False

    def over(self) -> None:
        """Let the others know."""
        self._crowd.turn.over()
