"""Final responses of work that was in an outbox, for `on_result` of those that dispatched it.

They come from the thread that hands over. Work that was rolled back has none, and what waits for
its response goes with the transaction: Django drops the callbacks that a rollback makes void.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

from dispatchers import DispatchResponse
from dispatchers.delivery import say

__all__ = ["Expected", "told"]

MOST = 10_000
"""Responses that are waited for: those that another process hands over never come."""


class Expected:
    """A response that is waited for, to be called when the row is committed.

    Args:
        request_id: The request's id.

        report: Called with the response.
    """

    def __init__(self, request_id: str, report: Callable[[DispatchResponse], object]) -> None:
        self.request_id, self.report = request_id, report
        self.__qualname__ = "on_result"  # Django's log of callbacks asks for it
        _all[request_id] = self

    def __call__(self) -> None:
        """Keep waiting for it beyond the transaction."""
        _committed[self.request_id] = self
        if self.request_id not in _all:  # it came between the commit and this
            _committed.pop(self.request_id, None)
        if len(_committed) > MOST:
            _committed.popitem(last=False)


def told(response: DispatchResponse) -> None:
    """Hand a final response to what waits for it."""
    found = _all.pop(response.request_id, None)
    _committed.pop(response.request_id, None)
    if found is None:
        return
    try:
        found.report(response)
    except Exception as exc:  # noqa: BLE001 - it is told what happened, and changes nothing
        say(logging.ERROR, "on_result raised %s; the dispatch stands", type(exc).__name__)


# No lock, which a forked child might find taken: each step is one of a dictionary.
# Weak: before the commit only Django's list of callbacks holds what waits.
_all: WeakValueDictionary[str, Expected] = WeakValueDictionary()
_committed: OrderedDict[str, Expected] = OrderedDict()
