"""`null`: accepts everything and does nothing with it.

For what a deployment does not want done: usage statistics on a laptop, mails in a load test. The
envelope is encoded and checked as everywhere, so that what passes here passes on a real backend.
"""

from __future__ import annotations

from dispatchers._dispatch.in_process import InProcessDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.request import DispatchRequest

__all__ = ["NullDispatcher"]


class NullDispatcher(InProcessDispatcher):
    """Answers `ACCEPTED`, `confirmed` and `durable` false: the work is nowhere."""

    name = "null"
    contract = 1
    capabilities = Capabilities(delay=True, priority=True, deduplicate=True)

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        del body, timeout
        return Sent(request.id)
