"""Dramatiq's `StubBroker`: queues in this process, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dramatiq.common import dq_name, q_name

from ._message import Packet

__all__ = ["StubPublisher"]


class StubPublisher:
    """Puts messages into the queues of a `StubBroker`.

    Args:
        broker: Dramatiq's.
    """

    def __init__(self, broker: Any) -> None:
        self._broker = broker

    def publish(self, packets: Sequence[Packet], until: float) -> list[Exception | None]:
        """Put them into their queues, which are declared if need be."""
        del until
        for packet in packets:
            self._broker.declare_queue(q_name(packet.queue))
            self._broker.queues[packet.queue].put(packet.data)
        return [None] * len(packets)

    def probe(self, timeout: float) -> None:
        """It is here."""

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """How many messages wait in these queues, or are with a worker."""
        del timeout
        names = [n for name in queues for n in (name, dq_name(name))]
        known = self._broker.queues
        return sum(known[name].unfinished_tasks for name in names if name in known)

    def close(self) -> None:
        """Nothing is open."""
