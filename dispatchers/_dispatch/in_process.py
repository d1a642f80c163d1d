"""The base of dispatchers that contact nothing: a hand-over is a call in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._errors import ErrorCategory
from dispatchers._models.request import DispatchRequest


class InProcessDispatcher(BaseDispatcher):
    """Hands over without waiting, so that no thread is needed on an event loop."""

    required: ClassVar[tuple[str, ...]] = ("_send",)
    journal = "memory"

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        cls._hands_over_at_once = cls._asend is InProcessDispatcher._asend

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self._send(request, body, timeout=timeout)

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        return self._send_many(items, timeout=timeout)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        del exc
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        del exc
        return False
