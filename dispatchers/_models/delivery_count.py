"""The counts that travel beside an envelope where a transport keeps none."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from dispatchers._models.outcome import Outcome

ATTEMPT, DELIVERIES, DUE = "dispatchers_attempt", "dispatchers_deliveries", "dispatchers_due"
"""The headers that travel beside an envelope, on transports that count nothing themselves."""

MAX_DIGITS = 9
"""Headers may come from any program; no count is longer."""


class DeliveryCount(NamedTuple):
    """The counts that travel beside an envelope where the transport keeps none."""

    attempt: int = 1
    """The attempt that a run of it is, from 1."""
    deliveries: int = 1
    """How often that attempt was handed to a worker, this time included."""
    due: float = 0.0
    """Seconds since the epoch before which it is not run; 0 is at once."""

    @classmethod
    def read(cls, headers: Mapping[Any, Any]) -> DeliveryCount:
        """Read the counts from headers; anything that is not a count reads as the first.

        Args:
            headers: Names as text or bytes; values as numbers, or as text or bytes of them.
        """
        return cls(
            _count(_header(headers, ATTEMPT)),
            _count(_header(headers, DELIVERIES)),
            _instant(_header(headers, DUE)),
        )

    @property
    def headers(self) -> dict[str, Any]:
        """Return the headers as they travel."""
        return {ATTEMPT: self.attempt, DELIVERIES: self.deliveries, DUE: self.due}

    @property
    def wait(self) -> float:
        """Return the seconds until it is due."""
        return max(0.0, self.due - time.time())

    def held_back(self, seconds: float) -> DeliveryCount:
        """Return the same counts, due so many seconds from now."""
        return self._replace(due=time.time() + seconds if seconds > 0 else 0.0)

    def next_attempt(self, outcome: Outcome) -> DeliveryCount:
        """Return the counts of the attempt that an outcome asks for."""
        again = self.held_back(outcome.after)
        return again._replace(attempt=outcome.attempt + 1, deliveries=1)


def _header(headers: Mapping[Any, Any], name: str) -> object:
    # Some clients give the names of headers as bytes.
    return headers.get(name, headers.get(name.encode()))


def _count(value: object) -> int:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    # `isdigit` alone is true for digits of other scripts, such as superscripts.
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        text = int(text)
    return text if type(text) is int and 0 < text < 10**MAX_DIGITS else 1


def _instant(value: object) -> float:
    # A bool is an int to Python, and no instant to a producer.
    if isinstance(value, bool) or not isinstance(value, int | float | str | bytes):
        return 0.0
    try:
        instant = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return instant if math.isfinite(instant) else 0.0
