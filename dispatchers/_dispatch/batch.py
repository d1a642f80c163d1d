"""One `dispatch_many`: requests read in chunks, and a slot for each response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from dispatchers._dispatch.admission import Admitted, iterated
from dispatchers._dispatch.error_mapping import AnswerError, is_final, out_of_time
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchResponses

CHUNK_ITEMS = 1000
"""Requests encoded before the backend is contacted: what waits takes no memory, or time."""

CHUNK_BYTES = 16 * 1024 * 1024
"""Bytes of envelopes in one chunk."""

Admit = Callable[[DispatchRequest], Admitted]
Answer = Callable[[DispatchRequest, Sent, tuple[str, ...]], DispatchResponse]
Refuse = Callable[[Sequence[object], Exception, bool, bool], list[DispatchResponse]]
"""Requests, the reason, whether the backend was contacted, whether the breaker counts it."""


def is_hurried(deadline: float, usual: float) -> bool:
    """Return true for a deadline that is so short that passing it says little of a backend.

    Not for any that is shorter: `failover` leaves its members a little less than their own, and
    one that is never counted as late would cost every dispatch its time.
    """
    return deadline < usual / 2


class Batch:
    """The requests of one call, the chunk to send of them, and their responses in order.

    Only the time in the backend counts against the deadline: encoding is the caller's own work.

    Args:
        admit: Checks and encodes a request.

        answer: Makes the response to a request that was handed over.

        refuse: Makes the responses to requests that were not.

        deadline: Seconds for the whole call, unless one of its requests has a shorter one.

        in_order: Nothing is sent after a request that failed and may be dispatched again.
    """

    def __init__(
        self,
        admit: Admit,
        answer: Answer,
        refuse: Refuse,
        deadline: float,
        *,
        in_order: bool = False,
    ) -> None:
        self._admit, self._answer, self._refuse = admit, answer, refuse
        self._in_order = in_order
        self._responses: list[DispatchResponse | None] = []
        self._slots: list[tuple[int, DispatchRequest, tuple[str, ...]]] = []
        self._items: list[Item] = []
        self._stopped: Exception | None = None
        self.was_begun = False
        """A chunk of it has been sent."""
        self._usual = self._deadline = deadline
        self._spent = self._spent_before = 0.0
        self._begun: float | None = None  # when the chunk under way reached the backend

    @property
    def is_hurried(self) -> bool:
        """True if a request's deadline is much shorter than the dispatcher's."""
        return is_hurried(self._deadline, self._usual)

    def chunks(self, requests: object) -> Iterator[list[Item]]:
        """Yield what is to be sent together; after a failure, refuse the rest."""
        rest = self._read(requests)
        while self._stopped is None and self._fill(rest):
            yield self._items
        if self._stopped is not None:
            # Read to the end even so: the caller is owed one response for each request.
            remaining = list(rest)
            self._responses += self._refuse(remaining, self._stopped, False, False)

    def refuse_all(self, requests: object, exc: Exception) -> None:
        """Refuse every request, for a call that is not begun at all."""
        self._responses += self._refuse(list(self._read(requests)), exc, False, True)

    def _read(self, requests: object) -> Iterator[DispatchRequest]:
        try:
            yield from iterated(requests)
        except Exception as exc:  # noqa: BLE001 - C1: the iterable itself may raise
            self._responses += self._refuse([None], exc, False, False)

    def _fill(self, rest: Iterator[DispatchRequest]) -> bool:
        self._slots, self._items, size = [], [], 0
        self._begun, self._spent_before = None, self._spent
        for request in rest:
            size += self._add(request)
            if self._stopped or len(self._items) >= CHUNK_ITEMS or size >= CHUNK_BYTES:
                break
        return bool(self._items)

    def _add(self, request: DispatchRequest) -> int:
        try:
            admitted, body, waived = self._admit(request)
        except Exception as exc:  # noqa: BLE001 - C1
            refused = self._refuse([request], exc, False, False)
            self._responses += refused
            self._stop_after(refused[0], exc)
            return 0
        self._slots.append((len(self._responses), admitted, waived))
        # A slot now, filled later, keeps the order although refusals are answered at once.
        self._responses.append(None)
        self._items.append((admitted, body))
        # One call to the backend has one deadline: the shortest of its requests.
        self._deadline = min(self._deadline, admitted.deadline or self._deadline)
        return len(body)

    def begin(self, *, endless: bool = False) -> float:
        """Note the contact with the backend; return the seconds left.

        Args:
            endless: The work runs in this call, which no deadline cuts.

        Raises:
            RejectedError: There is no time left.
        """
        left = self._deadline - self._spent
        if left <= 0 and not endless:
            raise out_of_time()
        self.was_begun = True
        self._begun = monotonic()
        return 0.0 if endless else left

    def take(self, results: Sequence[Sent | Exception]) -> None:
        """Fill the slots from an adapter's results, one for each item, in order."""
        self._end()
        given: object = results
        count = len(given) if isinstance(given, Sequence) else None
        if count != len(self._items):
            raise AnswerError(f"_send_many gave {count} results for {len(self._items)} items")
        # By identity: an adapter that failed as a whole repeats one exception for every item.
        failed: dict[int, tuple[Exception, list[tuple[int, DispatchRequest]]]] = {}
        for (place, request, waived), result in zip(self._slots, results, strict=True):
            error = self._taken(place, request, waived, result)
            if error is not None:
                failed.setdefault(id(error), (error, []))[1].append((place, request))
        # A backend that took one of them is alive, whatever became of the others.
        counted = sum(len(places) for _, places in failed.values()) == len(self._items)
        for error, places in failed.values():
            self._put(places, error, contacted=True, counted=counted)
            # One failed call is one failure to the breaker, however many causes its items had.
            counted = False

    def _stop_after(self, response: DispatchResponse, exc: Exception) -> None:
        if self._in_order and not is_final(response.status, response.error):
            self._stopped = self._stopped or self._untried(exc)

    def _taken(
        self, place: int, request: DispatchRequest, waived: tuple[str, ...], result: object
    ) -> Exception | None:
        """Fill the slot of a request that was handed over, or return why it was not."""
        if isinstance(result, Exception):
            return result
        try:
            self._responses[place] = self._answer(request, result, waived)  # type: ignore[arg-type]
        except Exception as exc:  # noqa: BLE001 - C1: the others have their own answers
            return exc
        return None

    def _put(
        self,
        places: list[tuple[int, DispatchRequest]],
        exc: Exception,
        *,
        contacted: bool,
        counted: bool,
    ) -> None:
        refused = self._refuse([request for _, request in places], exc, contacted, counted)
        for (place, _), response in zip(places, refused, strict=True):
            self._responses[place] = response
            self._stop_after(response, exc)

    def fail(self, exc: Exception) -> None:
        """Say `exc` of each request of the chunk, and refuse those after it untried."""
        contacted = self._begun is not None
        self._end()
        places = [(n, request) for n, request, _ in self._slots if self._responses[n] is None]
        self._put(places, exc, contacted=contacted, counted=True)
        # The next chunk would most likely wait for its own timeout only to fail in the same way.
        self._stopped = exc if isinstance(exc, RejectedError) else self._untried(exc)

    def _end(self) -> None:
        if self._begun is not None:
            self._spent = self._spent_before + monotonic() - self._begun

    def responses(self) -> DispatchResponses:
        """Return the responses in the order of the requests."""
        return DispatchResponses(found for found in self._responses if found is not None)

    def _untried(self, exc: Exception) -> RejectedError:
        """Return the reason for what comes after a chunk that failed."""
        if self._spent >= self._deadline:
            return out_of_time()
        message = "not tried: the part of the batch before it failed"
        error = RejectedError(ErrorCategory.UNAVAILABLE, message)
        error.__cause__ = exc
        return error
