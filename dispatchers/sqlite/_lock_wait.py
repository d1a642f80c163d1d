"""Waiting for a file that other processes write to."""

from __future__ import annotations

import time
from random import SystemRandom

from dispatchers.sqlite._fair_lock import FairLock

__all__ = ["Contention", "LockWait"]

# Not the state of `random`, which is the application's, and which a fork would copy.
_CHANCE = SystemRandom()

# Seconds between two tries. A commit takes 0.1 ms on a quick disk, 10 ms on a slow one.
_SHORTEST = 0.0003


_LONGEST = 0.003


# Seconds for which a process that saw others wait looks for them before each write, and after which
# one that did not looks again: a process that writes without a pause would never see them.
_REMEMBERED = 1.0


_LOOK = 0.005


# Seconds of waiting after which a process tries although others have waited longer, and between two
# such tries. One of them that succeeds shows that they do not use their turn: a process that was
# stopped (SIGSTOP, a paused container) keeps its place. Then no place counts for a while.
_DOUBT = 0.1


_BETWEEN = 0.02


_DISREGARD = 2.0


class Contention:
    """The other processes that want to write, as far as one knows of them.

    Args:
        path: The file.
    """

    __slots__ = ("_disregarded", "_looked", "_seen", "turn")

    def __init__(self, path: str) -> None:
        self._seen = self._looked = self._disregarded = float("-inf")
        self.turn = FairLock(path)

    def seen(self, now: float) -> None:
        """Another process was in the way."""
        self._seen = now

    def comes(self, now: float, age: float) -> bool:
        """Tell whether it is this process's turn, which has waited for `age` seconds."""
        comes = self.turn.comes(age)  # which also tells the others how long this one has waited
        return comes or now < self._disregarded

    def disregard(self) -> None:
        """Have the places of others count for nothing for a while."""
        self._disregarded = time.monotonic() + _DISREGARD

    @property
    def waits(self) -> bool:
        """Tell whether another waits already, as far as that is worth looking."""
        now = time.monotonic()
        # A stopped process keeps its byte locked: its turn must not block the others for ever.
        if now < self._disregarded:
            return False
        if now - self._seen > _REMEMBERED and now - self._looked < _LOOK:
            return False
        self._looked = now
        if not self.turn.others_wait():
            return False
        self._seen = now
        return True


class LockWait:
    """One wait, until a deadline. To be `over` in any case.

    Args:
        crowd: What is known of others.

        deadline: The instant of `time.monotonic()` at which it ends.
    """

    __slots__ = ("_crowd", "_deadline", "_doubt_at", "_doubts", "_since")

    def __init__(self, crowd: Contention, deadline: float) -> None:
        self._crowd = crowd
        self._deadline = deadline
        self._since = time.monotonic()
        self._doubt_at = self._since + _DOUBT
        self._doubts = False

    def wait(self) -> bool:
        """Wait until it is worth a try; false if the deadline has passed."""
        while (left := self._deadline - (now := time.monotonic())) > 0:
            self._crowd.seen(now)
            # At random, so that processes that began to wait together do not collide again.
            time.sleep(min(left, _CHANCE.uniform(_SHORTEST, _LONGEST)))
            now = time.monotonic()
            self._doubts = not self._crowd.comes(now, now - self._since)
            if not self._doubts:
                return True
            if now >= self._doubt_at:
                self._doubt_at = now + _BETWEEN
                return True
        self._doubts = False
        return False

    def over(self) -> None:
        """Let the others know; to be called in any case."""
        if self._doubts:  # the last try was out of turn, and no other came after it
            self._crowd.disregard()
        self._crowd.turn.over()
