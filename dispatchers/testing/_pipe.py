"""The rule that connections through the fault proxy obey, and the bytes under way in one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

__all__ = ["Counts", "Direction", "Pipe", "Rule"]

Direction = Literal["request", "reply"]
"""From the client to the upstream server, or back."""

DRIP_SECONDS = 0.02
"""How often drops fall: often enough to look like a stream, not so often as to be work."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Behaviour of connections."""

    mode: str
    listening: Literal["accept", "refuse", "ignore"] = "accept"
    connection: Literal["forward", "swallow", "hold", "reset", "close"] = "forward"
    direction: Direction = "reply"
    after: int | None = None
    """Bytes of `direction` that still pass."""
    then: Literal["reset", "close", "stall"] = "stall"
    """What happens in place of the next byte."""
    delay: float = 0.0
    """Seconds by which each byte of `direction` is late."""
    rate: float | None = None
    """Bytes of `direction` per second."""

    def __post_init__(self) -> None:
        """Refuse what would be no fault: a test that relies on it would pass for nothing."""
        _require(self.direction in ("request", "reply"), "direction", self.direction)
        ends = ("stall",) if self.mode == "stall" or self.after is None else ("reset", "close")
        _require(self.then in ends, "how", self.then)
        _require(self.after is None or self.after >= 0, "after", self.after)
        _require(self.delay >= 0, "delay", self.delay)
        _require(self.rate is None or self.rate > 0, "bytes_per_second", self.rate)


def _require(fits: bool, name: str, value: object) -> None:
    if not fits:
        raise ValueError(f"{name} cannot be {value!r}")


@dataclass(slots=True)
class Counts:
    """Bytes and connections that passed the proxy."""

    connections: int = 0
    request: int = 0
    reply: int = 0

    def add(self, direction: Direction, count: int) -> None:
        """So many bytes were forwarded."""
        if direction == "request":
            self.request += count
        else:
            self.reply += count


class Pipe:
    """Bytes on their way in one direction."""

    __slots__ = (
        "blocked",
        "chunks",
        "delay",
        "direction",
        "eof",
        "left",
        "rate",
        "shut",
        "size",
        "wet",
    )

    def __init__(self, direction: Direction) -> None:
        self.direction: Direction = direction
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.blocked = self.eof = self.shut = False
        self.left: int | None = None
        self.delay = 0.0
        self.rate: float | None = None
        self.wet = 0.0  # the time of the next drop

    def obey(self, rule: Rule) -> None:
        mine = rule.direction == self.direction
        self.left = rule.after if mine else None
        self.delay = rule.delay if mine else 0.0
        self.rate = rule.rate if mine else None
        # The pace of an earlier rule must not hold bytes of this one back.
        self.wet = 0.0
        if not self.delay:
            # A rule without a delay also frees the bytes that an earlier rule was holding.
            self.chunks = deque((0.0, data) for _, data in self.chunks)

    def put(self, data: bytes, now: float) -> None:
        self.chunks.append((now + self.delay, data))
        self.size += len(data)

    def clear(self) -> None:
        self.chunks.clear()
        self.size = 0

    def due(self) -> float | None:
        """Return when the next byte may go; None without one, or while the sink is not ready."""
        return max(self.chunks[0][0], self.wet) if self.chunks and not self.blocked else None

    def head(self) -> bytes:
        """Return the bytes that may be written now; none once `left` is used up."""
        data = self.chunks[0][1]
        # One byte at least, or a rate below fifty bytes a second would never move.
        drop = len(data) if self.rate is None else max(1, int(self.rate * DRIP_SECONDS))
        return data[: drop if self.left is None else min(drop, self.left)]

    def written(self, count: int, now: float) -> None:
        due, data = self.chunks.popleft()
        if count < len(data):
            # In front again: order is what a stream promises.
            self.chunks.appendleft((due, data[count:]))
        self.size -= count
        if self.left is not None:
            self.left -= count
        if self.rate is not None:
            self.wet = now + count / self.rate
