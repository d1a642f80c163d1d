"""The circuit breaker: a backend that keeps failing is left alone for a while.

::

              failures in a row                 reset seconds later
    closed ----------------------> open ------------------------------> half-open
      ^                             ^                                       |
      |                             +---------- the probe failed -----------+
      +------------------------------------------- probes succeeded --------+

Half-open, one probe at a time is let through; everybody else is refused as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from threading import RLock
from typing import Literal

from pydantic import Field

from ._fork import renew_after_fork
from ._model import Model

__all__ = ["Breaker", "BreakerSettings", "BreakerState", "Transition"]

Transition = Literal["opened", "closed"]
"""What a caller logs: the breaker went from closed to open, or back."""


class BreakerState(StrEnum):
    """Whether calls are let through."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None, until `reset` seconds have passed."""
    HALF_OPEN = "half_open"
    """One at a time, to see whether the backend works again."""


class BreakerSettings(Model):
    """When a breaker opens, and how it closes again."""

    failures: int = Field(default=5, ge=1)
    """Failures in a row that open it."""
    reset: float = Field(default=5.0, gt=0)
    """Seconds from opening, or from a failed probe, until the next probe is let through."""
    probes: int = Field(default=1, ge=1)
    """Probes that must succeed, one after the other, before it closes."""
    probe_timeout: float = Field(default=10.0, gt=0)
    """Seconds after which a probe that has not reported back is given up and the next one let
    through; longer than any deadline in use."""


class Breaker:
    """Counts failures in a row and says whether a call is worth trying.

    Serves many threads; the lock is re-entrant, so that a signal handler may use the breaker that
    it interrupts. A forked child keeps the state. Whoever is allowed reports back once, with
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
        """The state at this moment; half-open from the time on that a probe may go."""
        if self._is_closed:
            return BreakerState.CLOSED
        if self._probing or self._clock() >= self._next_probe:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    def allow(self) -> bool:
        """Whether to try; refusals are counted in `suppressed`."""
        if self._is_closed:
            return True
        if (now := self._clock()) >= self._next_probe and self._take_probe(now):
            return True
        self.suppressed += 1  # no lock: this is the answer that must cost nothing
        return False

    def refuses(self) -> bool:
        """Whether it is open, with no probe due: a quick look, before whoever asks `allow`.

        A refusal is counted in `suppressed`.
        """
        if self._is_closed or self._clock() >= self._next_probe:
            return False
        self.suppressed += 1
        return True

    def _take_probe(self, now: float) -> bool:
        """Whether the current caller is the probe, or no probe is needed any more."""
        with self._lock:
            if now < self._next_probe:  # another caller was faster
                return False
            self._probing = not self._is_closed
            self._next_probe = now + self.settings.probe_timeout
            return True

    def record_success(self) -> Transition | None:
        """The backend took it. Returns `closed` if that closed the breaker."""
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
        """The backend failed, or may have. Returns `opened` if that opened the breaker."""
        with self._lock:
            if self._is_closed:
                self._failures += 1
                return self._open() if self._failures >= self.settings.failures else None
            if self._probing:
                self._successes = 0
                self._free(self._clock() + self.settings.reset)
            return None

    def record_neutral(self) -> None:
        """It says nothing of the backend, the caller's fault for one: the next probe may go."""
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
        """The child has a lock of its own, and none of the parent's probes."""
        self._lock = RLock()
        if self._probing:
            self._free(self._clock())
