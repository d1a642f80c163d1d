"""The suite of dispatchers that pass work on is tested itself: each case catches a mistake."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import pytest

from dispatchers import BaseDispatcher, Capabilities, DispatchStatus, ErrorCategory, Sent
from dispatchers._models.base import build
from dispatchers._models.response import DispatchResponse
from dispatchers.backends._passage import Passage
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.testing.passing import PassingConformance, PassingHarness

CASES = sorted(name for name in dir(PassingConformance) if name.startswith("test_"))


class Broken(FailoverDispatcher):
    """A failover that is broken in the way that its name tells."""

    kind: type[Passage] = Passage
    durable = True
    after_unknown = False
    moves: frozenset[ErrorCategory] | None = None

    def _passage(self, items: Any, timeout: float) -> Passage:
        moves = self._moves if self.moves is None else self.moves
        requests = [request for request, _ in items]
        return self.kind(self._ways, moves, requests, timeout, after_unknown=self.after_unknown)


class NeverMoves(Broken):
    moves = frozenset()


class MovesInDoubt(Broken):
    after_unknown = True


class MovesWhatIsWrong(Broken):
    moves = frozenset(ErrorCategory)


class MovesAll(Broken):
    """Moves a batch as a whole where one of it is not taken."""

    class kind(Passage):
        def take(self, responses: Sequence[DispatchResponse]) -> None:
            failed = next((each for each in responses if not each.ok), None)
            super().take(responses if failed is None else [failed] * len(responses))


class DeadlineEach(Broken):
    class kind(Passage):
        def _given(self, dispatcher: BaseDispatcher, left: float) -> Any:
            return super()._given(dispatcher, 3600.0)

        def _is_spared(self, member: Any, left: float) -> bool:
            return super()._is_spared(member, 3600.0)


class AsksTheOpen(Broken):
    class kind(Passage):
        def _is_spared(self, member: Any, left: float) -> bool:
            if member.dispatcher._breaker is not None:
                member.dispatcher._breaker._is_closed = True
            return super()._is_spared(member, left)


class SignsItself(Broken):
    def _sent(self, *args: Any, **options: Any) -> DispatchResponse:
        return changed(super()._sent(*args, **options), dispatcher=self.alias)


class ForgetsWho(Broken):
    def _sent(self, *args: Any, **options: Any) -> DispatchResponse:
        return changed(super()._sent(*args, **options), passed=())


class NamesTheLast(Broken):
    def _by_none(self, request: Any, passed: Any, started: float) -> DispatchResponse:
        return super()._by_none(request, passed[-1:], started)


class LeavesOut(Broken):
    """Has the first member do without what it cannot."""

    class kind(Passage):
        def _fit(self, member: Any) -> list[int]:
            self._requests = [each.replace(delay=None) for each in self._requests]
            return super()._fit(member._replace(lacks=frozenset()))


class TakesAnything(Broken):
    """Says that it can what no member can."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.capabilities = self.capabilities.model_copy(update={"delay": True})

    class kind(LeavesOut.kind): ...


class Fleeting(Broken):
    """Keeps in this process what it says to keep."""

    durable = False


def changed(response: DispatchResponse, **values: Any) -> DispatchResponse:
    return build(DispatchResponse, {**response.__dict__, **values}, response.__pydantic_private__)


BROKEN: dict[str, type[Broken]] = {
    "test_what_is_certainly_not_taken_moves": NeverMoves,
    "test_what_is_in_doubt_stays": MovesInDoubt,
    "test_what_is_wrong_with_the_request_ends_it": MovesWhatIsWrong,
    "test_of_several_only_what_was_not_taken_moves": MovesAll,
    "test_all_answer_within_one_deadline": DeadlineEach,
    "test_a_member_that_is_left_alone_costs_nothing": AsksTheOpen,
    "test_the_answer_names_the_member_that_has_it": SignsItself,
    "test_the_answer_names_those_that_rejected_it": ForgetsWho,
    "test_rejected_by_all_names_all": NamesTheLast,
    "test_a_member_that_cannot_is_passed_over": LeavesOut,
    "test_what_no_member_can_is_unsupported": TakesAnything,
    "test_what_is_kept_is_deferred_and_durable": Fleeting,
}
"""The mistake that each case must catch."""


class Held(BaseDispatcher):
    """Defers whatever it gets."""

    name = "held"
    contract = 1
    capabilities = Capabilities(batch=True)

    def __init__(self, *, durable: bool) -> None:
        super().__init__(alias="held", breaker=False)
        self.durable = durable

    def _send(self, request: Any, body: bytes, *, timeout: float) -> Sent:
        return Sent(request.id, DispatchStatus.DEFERRED, durable=self.durable)

    def _category(self, exc: Exception) -> None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return True


class BrokenHarness(PassingHarness):
    def __init__(self, kind: type[Broken], *, keeps: bool) -> None:
        self.kind, self.keeps = kind, keeps  # type: ignore[misc]

    def make(self, members: Sequence[BaseDispatcher], deadline: float) -> BaseDispatcher:
        last = [Held(durable=self.kind.durable)] if self.keeps else []
        return self.kind(to=[*members, *last], deadline=deadline)


@pytest.mark.dispatchers_unchecked
@pytest.mark.parametrize(("case", "kind"), BROKEN.items())
def test_a_broken_dispatcher_is_caught(case: str, kind: type[Broken]) -> None:
    """Each case fails for the dispatcher that breaks its promise."""
    assert verdict(case, kind) == "failed"


@pytest.mark.dispatchers_unchecked
@pytest.mark.parametrize("case", CASES)
def test_one_that_is_whole_is_not(case: str) -> None:
    """What the broken ones derive from passes."""
    assert verdict(case, Broken) == "passed"


def test_every_case_has_a_broken_dispatcher() -> None:
    """A case that nothing can fail proves nothing."""
    assert sorted(BROKEN) == CASES


def test_every_case_has_its_number() -> None:
    """P1, P2 ... without a gap, each once, then its rules and a sentence."""
    docs = [inspect.getdoc(getattr(PassingConformance, case)) or "" for case in CASES]
    found = [re.match(r"P(\d+)(, [FO]\d+)+: [a-z`0-9].*\.$", doc, re.DOTALL) for doc in docs]

    numbers = sorted(int(match[1]) for match in found if match)
    assert numbers == list(range(1, len(CASES) + 1))


def verdict(case: str, kind: type[Broken]) -> str:
    """Return what a case says of a dispatcher, by a plain call of it."""
    method = getattr(PassingConformance(), case)
    category = "invalid" if "wrong" in case else "unavailable"
    harness = BrokenHarness(kind, keeps="kept" in case)
    available = {"harness": harness, "way": "dispatch", "category": category}
    try:
        method(**{name: available[name] for name in inspect.signature(method).parameters})
    except AssertionError:
        return "failed"
    return "passed"
