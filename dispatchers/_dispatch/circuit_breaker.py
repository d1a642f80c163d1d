"""Circuit breaker for a backend that keeps failing.

::

              failures in a row                 reset seconds later
    closed ----------------------> open ------------------------------> half-open
      ^                             ^                                       |
      |                             +---------- the probe failed -----------+
      +------------------------------------------- probes succeeded --------+

Half-open, one probe at a time is let through; other calls are refused as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from threading import RLock
from typing import Literal

from dispatchers._models.options import BreakerSettings
from dispatchers._runtime.fork import renew_after_fork

Transition = Literal["opened", "closed"]
"""What a caller logs: the breaker went from closed to open, or back."""


class BreakerState(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None, until `reset` seconds have passed."""
    HALF_OPEN = "half_open"
    """One at a time, to see whether the backend works again."""


class Breaker:
    """Circuit breaker that counts failures in a row.

    Serves many threads; the lock is re-entrant, so that a signal handler may use the breaker that
    it interrupts. A forked child keeps the state. A caller that is allowed reports back once, with
    `record_success`, `record_failure` or `record_neutral`.

    Args:
        settings: The numbers; by default `BreakerSettings()`.

        clock: Seconds that never step back.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or BreakerSettings()
        self.opened_count = 0
        """How often it went from closed to open."""
        self.suppressed = 0
        """Calls refused since it last went from closed to open."""
        self._clock = clock
        self._lock = RLock()
        self._is_closed = True
        self._failures = 0
        self._successes = 0
        self._next_probe = 0.0  # the time from which a probe is let through
        self._probing = False
        renew_after_fork(self)

    @property
    def state(self) -> BreakerState:
        """State now; half-open as soon as a probe may go."""
        if self._is_closed:
            return BreakerState.CLOSED
        if self._probing or self._clock() >= self._next_probe:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    def allow(self) -> bool:
        """Tell whether to try; count a refusal in `suppressed`."""
        if self._is_closed:
            return True
        if (now := self._clock()) >= self._next_probe and self._take_probe(now):
            return True
        self.suppressed += 1  # no lock: this is the answer that must cost nothing
        return False

    def refuses(self) -> bool:
        """Return true if it is open and no probe is due.

        A quick check before `allow` is called. A refusal is counted in `suppressed`.
        """
        if self._is_closed or self._clock() >= self._next_probe:
            return False
        self.suppressed += 1
        return True

    def _take_probe(self, now: float) -> bool:
        """Make the caller the probe, unless another was faster."""
        with self._lock:
            if now < self._next_probe:  # another caller was faster
                return False
            self._probing = not self._is_closed
            # A probe that never reports back must not keep the breaker open for ever.
            self._next_probe = now + self.settings.probe_timeout
            return True

    def record_success(self) -> Transition | None:
        """Count a success; return `closed` if that closed the breaker."""
        if self._is_closed:
            self._failures = 0
            return None
        with self._lock:
            if not self._probing:  # sent before the breaker opened
                return None
            self._successes += 1
            if self._successes >= self.settings.probes:
                return self._close()
            self._free(self._clock())
            return None

    def record_failure(self) -> Transition | None:
        """Count a failure; return `opened` if that opened the breaker."""
        with self._lock:
            if self._is_closed:
                self._failures += 1
                return self._open() if self._failures >= self.settings.failures else None
            if self._probing:
                # Successes count in a row: one failed probe begins the count again.
                self._successes = 0
                self._free(self._clock() + self.settings.reset)
            return None

    def record_neutral(self) -> None:
        """Free the probe after a call that says nothing of the backend."""
        if self._is_closed:
            return
        with self._lock:
            if self._probing:
                self._free(self._clock())

    def _open(self) -> Transition:
        self._next_probe = self._clock() + self.settings.reset
        self._probing = False
        self._successes = self.suppressed = 0
        self.opened_count += 1
        # Last, because `allow` reads without the lock: it may not see an open breaker half set up.
        self._is_closed = False
        return "opened"

    def _close(self) -> Transition:
        self._failures = 0
        self._probing = False
        self._is_closed = True
        return "closed"

    def _free(self, next_probe: float) -> None:
        self._probing = False
        self._next_probe = next_probe

    def _after_fork(self) -> None:
        """Renew the lock, and drop the parent's probe."""
        self._lock = RLock()
        if self._probing:
            self._free(self._clock())
