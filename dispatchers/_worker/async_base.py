"""Base class of workers whose client is asyncio only: coroutines on the core's event loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar, final

from dispatchers._models.dead_letter import DeadLetter
from dispatchers._runtime.loop_thread import bridge
from dispatchers._worker.base import BaseWorker, Work

__all__ = ["BaseAsyncWorker"]

H = TypeVar("H")
T = TypeVar("T")


class BaseAsyncWorker(BaseWorker[H]):
    """A worker whose client is asyncio only: you write coroutines.

    They run on one event loop of the core's own, that of `BaseAsyncDispatcher`, so that both may
    share a client. Handlers run on threads and never block it.
    """

    timeout: float = 10.0
    """Seconds for one call; `_atake` has those that it waits on top."""

    @abstractmethod
    async def _atake(self, wait: float) -> Work[H] | None:
        """Take work that is due, as `_take` does."""

    @abstractmethod
    async def _acomplete(self, work: Work[H]) -> None:
        """Settle it: nothing is left to do."""

    @abstractmethod
    async def _aretry(self, work: Work[H], after: float, attempt: int) -> None:
        """Let it come again in `after` seconds as attempt `attempt`, not delivered yet."""

    @abstractmethod
    async def _agive_back(self, work: Work[H], after: float, deliveries: int) -> None:
        """Let the same attempt come again, as `_give_back` does."""

    @abstractmethod
    async def _adead_letter(self, work: Work[H], letter: DeadLetter) -> None:
        """Settle it as failed. A configured store has the letter; without one, keep it."""

    async def _arenew(self, work: Work[H]) -> bool:
        """Hold it for another `lease`; false if it is lost, so that its run does not count."""
        return True

    @final
    def _take(self, wait: float) -> Work[H] | None:
        return self._waited(self._atake(wait), wait)

    @final
    def _complete(self, work: Work[H]) -> None:
        self._waited(self._acomplete(work))

    @final
    def _retry(self, work: Work[H], after: float, attempt: int) -> None:
        self._waited(self._aretry(work, after, attempt))

    @final
    def _give_back(self, work: Work[H], after: float, deliveries: int) -> None:
        self._waited(self._agive_back(work, after, deliveries))

    @final
    def _dead_letter(self, work: Work[H], letter: DeadLetter) -> None:
        self._waited(self._adead_letter(work, letter))

    @final
    def _renew(self, work: Work[H]) -> bool:
        return self._waited(self._arenew(work))

    def _waited(self, call: Coroutine[Any, Any, T], more: float = 0.0) -> T:
        future = bridge.submit(call)
        try:
            return future.result(self.timeout + more)
        finally:
            future.cancel()  # where it has not ended in time
