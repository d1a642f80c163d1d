"""The way of requests through the members of `failover`: rules F1 to F4 of docs/never-lose.md."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from time import monotonic
from typing import NamedTuple

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.error_mapping import failure
from dispatchers._errors import ErrorCategory
from dispatchers._models.base import build
from dispatchers._models.capabilities import OPTIONS
from dispatchers._models.envelope import head
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus, PassedOver

__all__ = ["INCAPABLE", "Member", "Passage"]

UNKNOWN, REJECTED = DispatchStatus.UNKNOWN, DispatchStatus.REJECTED
RESERVE = 0.05
"""Seconds of the deadline that are kept for each member after the one that is tried."""
UNNOTICED = 0.002
"""Seconds by which a member may be late without being told."""
INCAPABLE = frozenset({ErrorCategory.UNSUPPORTED, ErrorCategory.TOO_LARGE})
"""What a member cannot take at all, another one may."""


class Member(NamedTuple):
    """A dispatcher, and what requests may need that it cannot do."""

    dispatcher: BaseDispatcher
    lacks: frozenset[str]
    """Options that it cannot do, or would leave out, and that another member can."""
    left_alone: PassedOver
    """What is said of it while its breaker is open."""

    @classmethod
    def each_of(cls, dispatchers: Sequence[BaseDispatcher]) -> tuple[Member, ...]:
        """Return the members that these dispatchers are to each other."""
        can = [{o for o in OPTIONS if each.capabilities.supports(o)} for each in dispatchers]
        every = frozenset().union(*can)
        return tuple(
            cls(each, every - own, PassedOver(dispatcher=each.alias, error=each._open_error))
            for each, own in zip(dispatchers, can, strict=True)
        )


class Passage:
    """Requests on their way through the members: each goes on until one may have it.

    Args:
        members: In the order in which they are tried.

        moves: The categories of a rejection after which the next member is tried, those included
            that say that a member cannot take a request, and another may.

        requests: What is handed over.

        timeout: Seconds for all of it.

        after_unknown: Try the next one after `unknown` as well.

        queue: The queue of requests that name none.

        past_first: The places of requests that the first member is not asked for.
    """

    def __init__(
        self,
        members: Sequence[Member],
        moves: frozenset[ErrorCategory],
        requests: Sequence[DispatchRequest],
        timeout: float,
        *,
        after_unknown: bool = False,
        queue: str | None = None,
        past_first: Collection[int] = (),
    ) -> None:
        self._members, self._after_unknown = members, after_unknown
        self._moves, self._past_first = moves, past_first
        self._until, self._queue = monotonic() + timeout, queue
        self._requests = requests
        self._passed: list[tuple[PassedOver, ...]] = [()] * len(requests)
        self._final: dict[int, DispatchResponse] = {}
        self._unknown: dict[int, DispatchResponse] = {}
        self._stopped: set[int] = set()
        self._asked: list[int] = []

    def tries(self) -> Iterator[tuple[BaseDispatcher, list[DispatchRequest]]]:
        """Yield a member and the requests to give it; `take` is called before the next one."""
        for number, member in enumerate(self._members):
            left = self._until - monotonic() - RESERVE * (len(self._members) - number - 1)
            self._asked = self._fit(member)
            if not number and self._past_first:
                self._asked = [n for n in self._asked if n not in self._past_first]
            if self._asked and not self._is_spared(member, left):
                yield member.dispatcher, self._given(member.dispatcher, left)

    def take(self, responses: Sequence[DispatchResponse]) -> None:
        """Note what the member that was asked last has answered, in order."""
        for place, response in zip(self._asked, responses, strict=True):
            self._note(place, response)

    def answers(self) -> list[DispatchResponse | tuple[PassedOver, ...]]:
        """Return for each request the response of the member that has it, or may have it.

        Where no member has it: all of them, with their errors.
        """
        return [self._answer(place) for place in range(len(self._requests))]

    def _answer(self, place: int) -> DispatchResponse | tuple[PassedOver, ...]:
        found = self._final.get(place, self._unknown.get(place))
        # By identity: a response that is not `ok` is false.
        return self._passed[place] if found is None else self._with_passed(place, found)

    def _with_passed(self, place: int, response: DispatchResponse) -> DispatchResponse:
        # The caller's request, without the deadline that was left for it.
        values = {
            **response.__dict__,
            "request": self._requests[place],
            "passed": (*self._passed[place], *response.passed),
        }
        return build(DispatchResponse, values, response.__pydantic_private__)

    def _fit(self, member: Member) -> list[int]:
        """Return the places of the requests that are still without a member, if this one can."""
        final, stopped = self._final, self._stopped
        waiting = [n for n in range(len(self._requests)) if n not in final and n not in stopped]
        if not member.lacks:
            return waiting
        fit = []
        for place in waiting:
            if missing := head(self._requests[place]).needs & member.lacks:
                self._pass_over(place, (_unfit(member.dispatcher, missing),))
            else:
                fit.append(place)
        return fit

    def _is_spared(self, member: Member, left: float) -> bool:
        """Pass over a member that cannot be asked: no time, or its breaker is open."""
        dispatcher = member.dispatcher
        breaker = dispatcher._breaker
        if breaker is not None and breaker.refuses():
            passed = member.left_alone
        elif left <= 0 and not dispatcher.capabilities.runs_here:
            words = f"no time was left for {dispatcher.alias!r}"
            error = failure(ErrorCategory.TIMEOUT, words, None, retryable=True)
            passed = PassedOver(dispatcher=dispatcher.alias, error=error)
        else:
            return False
        for place in self._asked:
            self._pass_over(place, (passed,))
        return True

    def _given(self, dispatcher: BaseDispatcher, left: float) -> list[DispatchRequest]:
        """Return the requests for a member: the first with the time that is left for all."""
        given = [self._requests[place] for place in self._asked]
        if self._queue is not None:
            given = [_changed(each, queue=each.queue or self._queue) for each in given]
        # A request of its own costs more than the time that has passed since, where all is well.
        if left < (given[0].deadline or dispatcher.options.deadline) - UNNOTICED:
            given[0] = _changed(given[0], deadline=max(left, 0.001))
        return given

    def _note(self, place: int, response: DispatchResponse) -> None:
        error = response.error
        if error is not None and response.status is REJECTED:
            own = PassedOver(dispatcher=response.dispatcher, error=error)
            # Of a member that is a failover itself, those that it has asked.
            self._pass_over(place, response.passed or (own,))
            if error.category not in self._moves:
                self._stopped.add(place)
        elif error is not None and response.status is UNKNOWN and self._after_unknown:
            self._unknown.setdefault(place, response)
            self._pass_over(place, (PassedOver(dispatcher=response.dispatcher, error=error),))
        else:
            self._final[place] = response

    def _pass_over(self, place: int, by: tuple[PassedOver, ...]) -> None:
        self._passed[place] += by


def _unfit(dispatcher: BaseDispatcher, missing: Collection[str]) -> PassedOver:
    words = f"backend {dispatcher.name!r} cannot do {', '.join(sorted(missing))}"
    return PassedOver(
        dispatcher=dispatcher.alias, error=failure(ErrorCategory.UNSUPPORTED, words, None)
    )


def _changed(request: DispatchRequest, **changes: object) -> DispatchRequest:
    """Return the same request for one hand-over; what does not change its envelope is cheap."""
    known = None if "queue" in changes else {"_head": head(request)}
    return build(DispatchRequest, {**request.__dict__, **changes}, known)
