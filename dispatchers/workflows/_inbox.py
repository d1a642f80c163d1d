"""Signals that an execution has been sent and has not received yet."""

from __future__ import annotations

import asyncio
from collections import Counter


class Inbox:
    """Signals by name, each name in the order in which they were recorded."""

    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[tuple[int, bytes]]] = {}
        self._unreceived: set[int] = set()
        self._waiting: Counter[str] = Counter()

    @property
    def awaited(self) -> list[str]:
        """Names of the signals that the code waits for."""
        return [name for name, count in self._waiting.items() if count]

    @property
    def unreceived(self) -> list[int]:
        """Places of the signals that no code has received."""
        return sorted(self._unreceived)

    def put(self, name: str, body: bytes, seq: int) -> None:
        """Hand the signal at a place to the code that has waited longest, or keep it."""
        self._unreceived.add(seq)
        self._queue(name).put_nowait((seq, body))

    async def receive(self, name: str) -> bytes:
        """Wait for a signal."""
        self._waiting[name] += 1
        try:
            seq, body = await self._queue(name).get()
            self._unreceived.discard(seq)
            return body
        finally:
            self._waiting[name] -= 1

    def _queue(self, name: str) -> asyncio.Queue[tuple[int, bytes]]:
        return self._queues.setdefault(name, asyncio.Queue())
