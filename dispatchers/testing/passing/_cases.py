"""Cases of what moves on to another member, in which time, and what the answer says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Sent
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus
from dispatchers.testing.sources._tools import Answer, Backend, take_it

from ._harness import PassingHarness

DEADLINE = 20.0
"""Seconds for a case in which nothing is waited for."""
SHORT, GRACE, LATE = 1.0, 0.25, 1.0
"""Seconds: a deadline that passes, what the contract adds, and what a busy machine adds."""
MOVE = ("unavailable", "timeout", "throttled", "capacity", "closed", "authentication")
END = ("invalid", "permission", "not_found", "conflict")
Way = Callable[[BaseDispatcher, DispatchRequest], DispatchResponse]

WAYS: Mapping[str, Way] = {
    "dispatch": lambda to, given: to.dispatch(given),
    "dispatch_many": lambda to, given: to.dispatch_many([given, request()])[0],
    "adispatch": lambda to, given: asyncio.run(to.adispatch(given)),
    "adispatch_many": lambda to, given: asyncio.run(_many(to, given)),
}


async def _many(to: BaseDispatcher, given: DispatchRequest) -> DispatchResponse:
    return (await to.adispatch_many([given, request()]))[0]


def request(**fields: Any) -> DispatchRequest:
    """A request."""
    return DispatchRequest(task="shop.mail", payload={"n": 1}, **fields)


class Member(Backend):
    """A member that answers as the case says."""

    def __init__(
        self, alias: str, answer: Answer = take_it, *, can: bool = True, **options: Any
    ) -> None:
        self.capabilities = Capabilities(confirmed=True, batch=True, deduplicate=True, delay=can)
        super().__init__(answer, alias=alias, **options)
        self.got: list[DispatchRequest] = []

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self.got.append(request)
        return super()._send(request, body, timeout=timeout)


class Late(Member):
    """Takes as long as it may, and then certainly has not taken it."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self.got.append(request)
        time.sleep(timeout)
        raise RejectedError(ErrorCategory.TIMEOUT, f"{len(body)} bytes were not taken in time")


def rejecting(category: str, *ids: str) -> Answer:
    """Reject requests: those with these ids, or all."""

    def answer(request: DispatchRequest) -> None:
        if not ids or request.id in ids:
            raise RejectedError(ErrorCategory(category), "not by this one")

    return answer


def cut(request: DispatchRequest) -> None:
    """Leave it in doubt whether the request has arrived."""
    raise ConnectionResetError(f"cut after {request.id}")


def members(harness: PassingHarness, first: Member) -> list[Member]:
    """The first member, and another where the dispatcher takes two."""
    return [first, Member("second")][: harness.most]


class Moves:
    """P1 to P6."""

    @pytest.mark.parametrize("category", MOVE)
    @pytest.mark.parametrize("way", WAYS)
    def test_what_is_certainly_not_taken_moves(
        self, harness: PassingHarness, way: str, category: str
    ) -> None:
        """P1, F1: to the next member, or into what keeps it."""
        both = members(harness, Member("first", rejecting(category)))
        made = harness.make(both, DEADLINE)

        response = WAYS[way](made, given := request())
        assert response.ok
        if harness.most > 1:
            assert [each.id for each in both[1].got].count(given.id) == 1
        else:
            assert response.status is DispatchStatus.DEFERRED

    @pytest.mark.parametrize("way", WAYS)
    def test_what_is_in_doubt_stays(self, harness: PassingHarness, way: str) -> None:
        """P2, F1: it may have arrived, and would run twice."""
        both = members(harness, Member("first", cut))

        response = WAYS[way](harness.make(both, DEADLINE), request())
        assert response.status is DispatchStatus.UNKNOWN
        assert [each.got for each in both[1:]] in ([], [[]])

    @pytest.mark.dispatchers_unchecked  # of the other one in the batch
    @pytest.mark.parametrize("category", END)
    @pytest.mark.parametrize("way", WAYS)
    def test_what_is_wrong_with_the_request_ends_it(
        self, harness: PassingHarness, way: str, category: str
    ) -> None:
        """P3, F1: no other member would take it either."""
        both = members(harness, Member("first", rejecting(category)))

        response = WAYS[way](harness.make(both, DEADLINE), request())
        assert response.status is DispatchStatus.REJECTED
        assert response.error is not None
        assert response.error.category == category
        assert [each.got for each in both[1:]] in ([], [[]])

    def test_of_several_only_what_was_not_taken_moves(self, harness: PassingHarness) -> None:
        """P4, F1: the others have arrived."""
        given = [request(id=f"r{n}") for n in range(5)]
        both = members(harness, Member("first", rejecting("capacity", "r1", "r3")))

        answers = harness.make(both, DEADLINE).dispatch_many(given)
        assert [each.request_id for each in answers] == [each.id for each in given]
        assert all(each.ok for each in answers)
        assert both[0].took == ["r0", "r2", "r4"]
        assert [bool(each.passed) for each in answers] == [False, True, False, True, False]
        if harness.most > 1:
            assert both[1].took == ["r1", "r3"]

    @pytest.mark.dispatchers_unchecked
    def test_all_answer_within_one_deadline(self, harness: PassingHarness) -> None:
        """P5, F2: however many members are late, and a quarter of a second."""
        made = harness.make(
            [Late(f"late-{n}", deadline=SHORT) for n in range(3)][: harness.most], SHORT
        )

        begun = time.monotonic()
        made.dispatch(request())
        assert time.monotonic() - begun <= SHORT + GRACE + LATE

    def test_a_member_that_is_left_alone_costs_nothing(self, harness: PassingHarness) -> None:
        """P6, F2: while its breaker is open it is not asked."""
        breaker = {"failures": 1, "reset": 3600.0}
        both = members(harness, Member("first", rejecting("unavailable"), breaker=breaker))
        made = harness.make(both, DEADLINE)
        made.dispatch(request())

        response = made.dispatch(request(headers={"lane": "another"}))
        assert response.ok
        assert len(both[0].got) == 1
        assert [each.error.category for each in response.passed] == [ErrorCategory.CIRCUIT_OPEN]


class Answers:
    """P7 to P12."""

    @pytest.mark.parametrize("way", WAYS)
    def test_the_answer_names_the_member_that_has_it(
        self, harness: PassingHarness, way: str
    ) -> None:
        """P7, F3: with what it said, of the caller's own request."""
        both = members(harness, Member("first"))

        response = WAYS[way](harness.make(both, DEADLINE), given := request())
        assert (response.dispatcher, response.status) == ("first", DispatchStatus.ACCEPTED)
        assert (response.request_id, response.request) == (given.id, given)
        assert response.passed == ()

    @pytest.mark.parametrize("way", WAYS)
    def test_the_answer_names_those_that_rejected_it(
        self, harness: PassingHarness, way: str
    ) -> None:
        """P8, F3: in order, each with its error."""
        both = members(harness, Member("first", rejecting("throttled")))
        made = harness.make(both, DEADLINE)

        response = WAYS[way](made, request())
        assert response.dispatcher == ("second" if harness.most > 1 else made.alias)
        assert [(p.dispatcher, p.error.category) for p in response.passed] == [
            ("first", ErrorCategory.THROTTLED)
        ]

    def test_rejected_by_all_names_all(self, harness: PassingHarness) -> None:
        """P9, F3, O14: with the category of the last."""
        harness.need(2)
        both = [Member("first", rejecting("unavailable")), Member("second", rejecting("capacity"))]
        made = harness.make(both, DEADLINE)

        response = made.dispatch(request())
        if harness.keeps:
            assert response.status is DispatchStatus.DEFERRED
        else:
            assert response.status is DispatchStatus.REJECTED
            assert (response.dispatcher, response.error and response.error.category) == (
                made.alias,
                "capacity",
            )
        assert [each.dispatcher for each in response.passed] == ["first", "second"]

    def test_a_member_that_cannot_is_passed_over(self, harness: PassingHarness) -> None:
        """P10, F4: another that can gets the request as it is."""
        harness.need(2)
        both = [Member("first", can=False), Member("second")]
        given = request(delay=timedelta(seconds=60))

        response = harness.make(both, DEADLINE).dispatch(given)
        assert (response.ok, response.dispatcher) == (True, "second")
        assert both[0].got == []
        assert [each.due for each in both[1].got] == [given.due]

    def test_what_no_member_can_is_unsupported(self, harness: PassingHarness) -> None:
        """P11, F4: nothing is left out, and nothing is kept that would never be taken."""
        both = [Member(name, can=False) for name in ("first", "second")][: harness.most]

        response = harness.make(both, DEADLINE).dispatch(request(delay=timedelta(seconds=60)))
        assert response.status is DispatchStatus.REJECTED
        assert response.error is not None
        assert response.error.category is ErrorCategory.UNSUPPORTED
        assert [each.got for each in both] == [[] for _ in both]

    @pytest.mark.parametrize("way", WAYS)
    def test_what_is_kept_is_deferred_and_durable(self, harness: PassingHarness, way: str) -> None:
        """P12, F5: it waits on a disk by then, and the answer says so."""
        harness.need_keeping()
        both = members(harness, Member("first", rejecting("unavailable")))

        response = WAYS[way](harness.make(both[:1], DEADLINE), request())
        assert response.status is DispatchStatus.DEFERRED
        assert response.durable, "what was kept would not survive this process"
        assert response.error is None
