"""Final responses, for those who wrote a row and want to be told what became of it."""

from __future__ import annotations

import inspect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from dispatchers._models.response import DispatchResponse
from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.log import say
from dispatchers.forwarding import Fate, Settled

__all__ = ["OnResult", "Results", "tell"]

OnResult = Callable[[DispatchResponse], object]
"""Called with the final response of each request."""
MOST = 10_000
"""Requests that are remembered: those that another process hands over are told nothing of."""


class Results:
    """Calls that this process owes, by the request's id. Serves any number of threads."""

    def __init__(self) -> None:
        self._owed: OrderedDict[str, OnResult] = OrderedDict()
        self._lock = threading.Lock()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._owed, self._lock = OrderedDict(), threading.Lock()

    def expect(self, ids: Iterable[str], on_result: OnResult) -> None:
        """Have a function called with the final responses to some requests."""
        with self._lock:
            self._owed.update(dict.fromkeys(ids, on_result))
            while len(self._owed) > MOST:
                self._owed.popitem(last=False)

    def settled(self, settled: Sequence[Settled]) -> None:
        """Tell of rows that are gone or dead."""
        for each in settled:
            if each.fate is Fate.STAYS or each.response is None:
                continue
            with self._lock:
                owed = self._owed.pop(each.response.request_id, None)
            if owed is not None:
                tell(owed, each.response)


def tell(on_result: OnResult, response: DispatchResponse) -> None:
    """Call a function; what it raises is logged, and goes nowhere."""
    try:
        given = on_result(response)
    except Exception as exc:  # noqa: BLE001 - it is told what happened, and changes nothing
        say(logging.ERROR, "on_result raised %s; the dispatch stands", type(exc).__name__)
        return
    if inspect.iscoroutine(given):
        given.close()
        say(logging.ERROR, "on_result is async, and nothing awaits it here")
