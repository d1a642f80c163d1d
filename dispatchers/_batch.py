"""One `dispatch_many`: a slot per request, filled as it is refused, sent or failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from ._admission import admit, encoded
from ._errors import ErrorCategory, RejectedError
from ._request import DispatchRequest
from ._response import DispatchResponse, DispatchResponses
from ._verdict import AnswerError

if TYPE_CHECKING:
    from ._contract import BaseDispatcher, Item, Sent

__all__ = ["Batch", "iterated"]


class Batch:
    """The requests of one call, what is to be sent of them, and their responses in order."""

    def __init__(self, dispatcher: BaseDispatcher, requests: Iterable[DispatchRequest]) -> None:
        self._dispatcher = dispatcher
        self._started = monotonic()
        self._responses: list[DispatchResponse | None] = []
        self._places: list[int] = []
        self._contacted = False
        self.items: list[Item] = []
        try:
            for request in iterated(requests):
                self._admit(request)
        except Exception as exc:  # noqa: BLE001 - the iterable itself may raise (C1)
            self._refuse(None, exc)

    def _admit(self, request: DispatchRequest) -> None:
        try:
            request = admit(self._dispatcher, request)
            self.items.append((request, encoded(self._dispatcher, request)))
        except Exception as exc:  # noqa: BLE001 - C1
            self._refuse(request, exc)
        else:
            self._places.append(len(self._responses))
            self._responses.append(None)

    def _refuse(self, request: object, exc: Exception) -> None:
        refused = self._dispatcher._not_sent(request, exc, self._started, contacted=False)
        self._responses.append(refused)

    def time_left(self) -> float:
        """Seconds for the whole call; the shortest deadline of its requests rules."""
        usual = self._dispatcher.options.deadline
        tightest = min((r for r, _ in self.items), key=lambda r: r.deadline or usual)
        left = self._dispatcher._time_left(tightest, self._started)
        self._contacted = True
        return left

    def take(self, results: Sequence[Sent | Exception]) -> None:
        """Fill the slots from an adapter's results, one for each item, in order."""
        given: object = results
        count = len(given) if isinstance(given, Sequence) else None
        if count != len(self.items):
            raise AnswerError(f"_send_many gave {count} results for {len(self.items)} items")
        for (request, _), place, result in zip(self.items, self._places, results, strict=True):
            self._responses[place] = self._response(request, result)

    def _response(self, request: DispatchRequest, result: Sent | Exception) -> DispatchResponse:
        if not isinstance(result, Exception):
            try:
                return self._dispatcher._sent(request, result, self._started)
            except Exception as exc:  # noqa: BLE001 - C1: the others have their own answers
                result = exc
        return self._dispatcher._not_sent(request, result, self._started, contacted=True)

    def fail(self, exc: Exception) -> None:
        """Say of every slot that is still empty what `exc` says; the breaker hears it once."""
        counted = True
        for (request, _), place in zip(self.items, self._places, strict=True):
            if self._responses[place] is None:
                self._responses[place] = self._dispatcher._not_sent(
                    request, exc, self._started, contacted=self._contacted, counted=counted
                )
                counted = False

    def responses(self) -> DispatchResponses:
        """The responses in the order of the requests."""
        return DispatchResponses(found for found in self._responses if found is not None)


def iterated(requests: object) -> Iterable[DispatchRequest]:
    """What `dispatch_many` goes through.

    Raises:
        RejectedError: It was given something else.
    """
    if isinstance(requests, Iterable) and not isinstance(requests, DispatchRequest | str | bytes):
        return requests
    raise RejectedError(
        ErrorCategory.INVALID,
        f"dispatch_many() takes requests, not {type(requests).__name__}: pass a list of them",
    )
