"""`null`: accepts everything and does nothing with it.

For what a deployment does not want done: usage statistics on a laptop, mails in a load test. The
envelope is encoded and checked as everywhere, so that what passes here passes on a real backend.
"""

from __future__ import annotations

from collections.abc import Sequence

from dispatchers._capabilities import Capabilities
from dispatchers._contract import BaseDispatcher, Item, Sent
from dispatchers._errors import ErrorCategory
from dispatchers._request import DispatchRequest

__all__ = ["NullDispatcher"]


class NullDispatcher(BaseDispatcher):
    """Answers `ACCEPTED`, `confirmed` and `durable` false: nobody has the work."""

    name = "null"
    contract = 1
    capabilities = Capabilities(delay=True, priority=True, deduplicate=True)

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del body, timeout
        return Sent(request.id)

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
