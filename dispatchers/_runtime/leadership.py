"""One of several processes leads: it drains a store, and says so by heartbeats."""

from __future__ import annotations

import os
import time
import uuid
from abc import ABC, abstractmethod


class Leadership(ABC):
    """Knows in this process if it leads; where the heartbeats are written is the store's own."""

    lease: float
    """Seconds without a heartbeat after which another process leads."""
    _owner, _pid, _beaten = "", 0, 0.0

    def lead(self) -> bool:
        """Become, or stay, the one that drains."""
        if self._pid != os.getpid():
            # The pid is for people; the rest makes the name unique.
            self._owner, self._pid = f"{os.getpid()}-{uuid.uuid4().hex}", os.getpid()
            self._beaten = 0.0
        # A quarter: three heartbeats may be late before another process takes over.
        if self._beaten and time.monotonic() - self._beaten < self.lease / 4:
            return True
        leads = self._beat_or_take_over()
        self._beaten = time.monotonic() if leads else 0.0
        return leads

    def leave(self) -> None:
        """Let another process drain it at once."""
        # A forked child has not led.
        if self._beaten and self._pid == os.getpid():
            self._beaten = 0.0
            self._forget_leader()

    @abstractmethod
    def _beat_or_take_over(self) -> bool:
        """Write a heartbeat; return false where another process leads."""

    @abstractmethod
    def _forget_leader(self) -> None:
        """Remove what `_owner` has written."""
