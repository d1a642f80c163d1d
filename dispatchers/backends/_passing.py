"""Handing work to members, one after the other: what `failover` and `spill` have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from time import monotonic
from typing import Annotated, ClassVar, cast

from pydantic import AfterValidator, BeforeValidator

from dispatchers._config.api import sibling
from dispatchers._dispatch import hook_registry as hooks
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.circuit_breaker import Breaker
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._dispatch.reporting import unsent
from dispatchers._errors import ConfigurationError, ErrorCategory, nearest
from dispatchers._models.base import build
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.fields import as_tuple
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, PassedOver
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers.backends._passage import INCAPABLE, REJECTED, UNKNOWN, Passage

__all__ = ["MOVES", "Categories", "PassingDispatcher", "Unwaived", "members_named"]

MOVES = (
    ErrorCategory.UNAVAILABLE,
    ErrorCategory.TIMEOUT,
    ErrorCategory.CIRCUIT_OPEN,
    ErrorCategory.THROTTLED,
    ErrorCategory.CAPACITY,
    ErrorCategory.CLOSED,
    ErrorCategory.AUTHENTICATION,
)
"""Rejections that say nothing of the request: another member may take it."""


def _as_categories(value: object) -> object:
    value = as_tuple(value)
    known = [each.value for each in ErrorCategory]
    for each in value if isinstance(value, tuple) else ():
        if each not in known:
            raise ValueError(f"no category {each!r}{nearest(str(each), known)}")
    return tuple(map(ErrorCategory, value)) if isinstance(value, tuple) else value


Categories = Annotated[tuple[ErrorCategory, ...], BeforeValidator(_as_categories)]


def _unwaived(value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        raise ValueError("is for the members to say: waive it at those whose backends cannot")
    return value


Unwaived = Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(_unwaived)]


class _Taken(Sent):
    """Answer of the member that took the work."""

    response: DispatchResponse


class _NotTakenError(Exception):
    """No member has the work for certain: the response of one that may, or all rejections."""

    def __init__(self, answer: DispatchResponse | tuple[PassedOver, ...]) -> None:
        super().__init__("no member took the work")
        self.answer = answer


class PassingDispatcher(BaseDispatcher):
    """Hands over to members in order, under one deadline; the answer is the member's."""

    capabilities = Capabilities(
        delay=True,
        priority=True,
        retries=True,
        deduplicate=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        kills=True,
        worker=True,
        stats=True,
    )
    required: ClassVar[tuple[str, ...]] = ("_passage",)

    def _new_breaker(self) -> Breaker | None:
        return None  # each member has its own

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return _first(self._send_many([(request, body)], timeout=timeout))

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        passage = self._passage(items, timeout)
        for member, requests in passage.tries():
            with hooks.inner(requests):
                if len(requests) == 1:
                    passage.take([member.dispatch(requests[0])])
                else:
                    passage.take(member.dispatch_many(requests))
        return _results(passage)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return _first(await self._asend_many([(request, body)], timeout=timeout))

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        passage = await self._apassage(items, timeout)
        for member, requests in passage.tries():
            with hooks.inner(requests):
                if len(requests) == 1:
                    passage.take([await member.adispatch(requests[0])])
                else:
                    passage.take(await member.adispatch_many(requests))
        return _results(passage)

    # Not cut at the deadline here: each member is, but for one that runs the task in the call.
    def _hand_to_loop(
        self, call: AwaitedCall[Sent], request: DispatchRequest, body: bytes, timeout: float
    ) -> None:
        call.run(self._asend(request, body, timeout=timeout), None)

    async def _asend_batch(
        self, items: Sequence[Item], timeout: float
    ) -> Sequence[Sent | Exception]:
        return await self._asend_many(items, timeout=timeout)

    @abstractmethod
    def _passage(self, items: Sequence[Item], timeout: float) -> Passage:
        """Return the way of requests through the members."""

    async def _apassage(self, items: Sequence[Item], timeout: float) -> Passage:
        return self._passage(items, timeout)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        del exc
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        # What a member raised past its own contract says nothing of how far it got.
        del exc
        return True

    # The answer: that of the member which has the work.

    def _sent(
        self,
        request: DispatchRequest,
        sent: Sent,
        started: float,
        waived: tuple[str, ...] = (),
    ) -> DispatchResponse:
        if not isinstance(sent, _Taken):
            return super()._sent(request, sent, started, waived)
        return _timed(sent.response, started)

    def _refused(
        self,
        requests: Sequence[object],
        exc: Exception,
        started: float,
        *,
        contacted: bool,
        hurried: bool,
        counted: bool = True,
    ) -> list[DispatchResponse]:
        if not isinstance(exc, _NotTakenError):
            return super()._refused(
                requests, exc, started, contacted=contacted, hurried=hurried, counted=counted
            )
        if isinstance(exc.answer, DispatchResponse):
            return [_timed(exc.answer, started) for _ in requests]
        return [self._by_none(request, exc.answer, started) for request in requests]

    def _by_none(
        self, request: object, passed: tuple[PassedOver, ...], started: float
    ) -> DispatchResponse:
        # Of those that could take it, if any can: they may later.
        able = [each.error for each in passed if each.error.category not in INCAPABLE]
        last = (able or [each.error for each in passed])[-1]
        again = any(each.error.retryable for each in passed)
        error = build(type(last), {**last.__dict__, "retryable": again})
        response = unsent(
            self.alias, self.name, request, REJECTED, error, None, monotonic() - started
        )
        return build(DispatchResponse, {**response.__dict__, "passed": passed})


def members_named(to: Sequence[object], alias: str) -> tuple[BaseDispatcher, ...]:
    """Return the dispatchers that an option `to` names.

    Raises:
        ConfigurationError: There is none of a name, or the dispatcher names itself.
    """
    if alias in to:
        raise ConfigurationError(f"dispatcher {alias!r} names itself in `to`")
    found = [sibling(each) if isinstance(each, str) else each for each in to]
    for name, each in zip(to, found, strict=True):
        if not isinstance(each, BaseDispatcher):
            raise ConfigurationError(
                f"dispatcher {alias!r}: {name!r} is an object of {type(each).__name__}, "
                "which is no BaseDispatcher"
            )
    return cast("tuple[BaseDispatcher, ...]", tuple(found))


def _results(passage: Passage) -> list[Sent | Exception]:
    return [_result(answer) for answer in passage.answers()]


def _result(answer: DispatchResponse | tuple[PassedOver, ...]) -> Sent | Exception:
    if not isinstance(answer, DispatchResponse) or answer.status is UNKNOWN:
        return _NotTakenError(answer)
    taken = _Taken(answer.task_id, answer.status, error=answer.error, exception=answer.exception)
    taken.response = answer
    return taken


def _first(results: Sequence[Sent | Exception]) -> Sent:
    result = results[0]
    if isinstance(result, Exception):
        raise result
    return result


def _timed(response: DispatchResponse, started: float) -> DispatchResponse:
    """Return a response that the passage made for this answer, with the time of all members."""
    # Written into it, frozen as it is: no caller has it yet.
    vars(response)["elapsed"] = monotonic() - started
    return response
