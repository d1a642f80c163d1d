"""`failover`: hand work to the first of several dispatchers that certainly takes it.

Only what was certainly not handed over moves on: after `unknown` no other member gets the request.
All members share one deadline, and one whose breaker is open costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from dispatchers._config.api import sibling
from dispatchers._dispatch import hook_registry as hooks
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.batch import is_hurried
from dispatchers._dispatch.circuit_breaker import Breaker
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._dispatch.reporting import unsent
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ConfigurationError, ErrorCategory, nearest
from dispatchers._models.base import build
from dispatchers._models.capabilities import OPTIONS, Capabilities
from dispatchers._models.fields import as_tuple
from dispatchers._models.options import BackendOptions
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchStatus, PassedOver
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers.backends._members_worker import MembersWorker
from dispatchers.backends._passage import INCAPABLE, Member, Passage

__all__ = ["FailoverDispatcher", "FailoverOptions"]

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


def _as_members(value: object) -> object:
    return (value,) if isinstance(value, BaseDispatcher) else as_tuple(value)


def _members(given: tuple[object, ...]) -> tuple[object, ...]:
    wrong = [each for each in given if not isinstance(each, str | BaseDispatcher)]
    if wrong:
        raise ValueError(f"takes aliases, not {type(wrong[0]).__name__}")
    names = [
        each if isinstance(each, str) else cast("BaseDispatcher", each).alias for each in given
    ]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {twice[0]!r} twice")
    return given


def _as_categories(value: object) -> object:
    value = as_tuple(value)
    known = [each.value for each in ErrorCategory]
    for each in value if isinstance(value, tuple) else ():
        if each not in known:
            raise ValueError(f"no category {each!r}{nearest(str(each), known)}")
    return tuple(map(ErrorCategory, value)) if isinstance(value, tuple) else value


def _unwaived(value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        raise ValueError("is for the members to say: waive it at those whose backends cannot")
    return value


class FailoverOptions(BackendOptions):
    """Options of `failover`; what workers need stands at the members."""

    to: Annotated[tuple[object, ...], BeforeValidator(_as_members), AfterValidator(_members)] = (
        Field(min_length=1)
    )
    """The aliases of the members, in the order in which they are tried: `["broker", "backup"]`; in
    code the dispatchers themselves, too."""
    on: Annotated[tuple[ErrorCategory, ...], BeforeValidator(_as_categories)] = MOVES
    """The categories of a rejection after which the next member is tried."""
    unknown: Literal["stop", "next"] = "stop"
    """`next` tries the next member after `unknown`, too: only where the workers of all members ask
    one shared idempotency store."""
    waive: Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(_unwaived)] = ()
    """Nothing: it stands at the members."""
    deadline: float = Field(default=2.0, gt=0, le=3600)
    """Seconds for all members together; by default the longest deadline of a member."""


class _Taken(Sent):
    """Answer of the member that took the work."""

    response: DispatchResponse


class _NotTakenError(Exception):
    """No member has the work for certain: the response of one that may, or all rejections."""

    def __init__(self, answer: DispatchResponse | tuple[PassedOver, ...]) -> None:
        super().__init__("no member took the work")
        self.answer = answer


class FailoverDispatcher(BaseDispatcher):
    """Hands over to its members in order, under one deadline."""

    name = "failover"
    contract = 1
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
    )
    Options = FailoverOptions
    options: FailoverOptions

    def __init__(
        self,
        options: FailoverOptions | None = None,
        *,
        alias: str | None = None,
        **settings: object,
    ) -> None:
        given = cast("FailoverOptions", self._validated(options, settings))
        self.members = _found(given, alias or self.name)
        """The dispatchers in the order in which they are tried. Not owned, never closed."""
        # Before the base class's constructor, which reads them.
        self.capabilities = _together(self.members)
        super().__init__(_with_deadline(given, self.members, alias or self.name), alias=alias)
        self._ways = Member.each_of(self.members)
        if self.options.unknown == "next":
            _refuse_repeats(self.alias, self.members)

    @classmethod
    def stands_on(cls, options: BackendOptions) -> tuple[str, ...]:
        """Return the aliases of the members."""
        given = cast("FailoverOptions", options).to
        return tuple(each for each in given if isinstance(each, str))

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
        passage = self._passage(items, timeout)
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

    def _passage(self, items: Sequence[Item], timeout: float) -> Passage:
        return Passage(
            self._ways,
            self.options.on,
            [request for request, _ in items],
            timeout,
            after_unknown=self.options.unknown == "next",
            queue=self.options.queue,
        )

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
        rejected = DispatchStatus.REJECTED
        response = unsent(
            self.alias, self.name, request, rejected, error, None, monotonic() - started
        )
        return build(DispatchResponse, {**response.__dict__, "passed": passed})

    # The rest of a backend.

    def _probe(self, *, timeout: float) -> Sequence[str]:
        """Reach the members; raise if none can be reached, warn of those that cannot."""
        warnings: list[str] = []
        for member in self.members:
            try:
                member.check(contact=True)
            except Exception as exc:  # noqa: BLE001 - what others raise becomes a warning
                warnings.append(str(exc))
        if len(warnings) == len(self.members):
            raise ConfigurationError("; ".join(warnings))
        return warnings

    def _worker(self, options: WorkerOptions) -> Worker:
        able = [each for each in self.members if each.capabilities.worker]
        if not able:
            raise ConfigurationError(f"no member of {self.alias!r} has a worker of its own")
        return able[0]._worker(options) if len(able) == 1 else MembersWorker(able, options)


def _found(options: FailoverOptions, alias: str) -> tuple[BaseDispatcher, ...]:
    if alias in options.to:
        raise ConfigurationError(f"dispatcher {alias!r} names itself in `to`")
    found = [sibling(each) if isinstance(each, str) else each for each in options.to]
    for name, each in zip(options.to, found, strict=True):
        if not isinstance(each, BaseDispatcher):
            raise ConfigurationError(
                f"dispatcher {alias!r}: {name!r} is an object of {type(each).__name__}, "
                "which is no BaseDispatcher"
            )
    return cast("tuple[BaseDispatcher, ...]", tuple(found))


def _with_deadline(
    options: FailoverOptions, members: Sequence[BaseDispatcher], alias: str
) -> FailoverOptions:
    """Return the options with the longest deadline of the members, where none is given.

    Raises:
        ConfigurationError: It is so short that members which are late would never be left alone.
    """
    if "deadline" not in options.model_fields_set:
        longest = max(member.options.deadline for member in members)
        return build(FailoverOptions, {**options.__dict__, "deadline": longest})
    for each in members:
        if is_hurried(options.deadline, each.options.deadline):
            raise ConfigurationError(
                f"dispatcher {alias!r}: deadline = {options.deadline:g} is less than half of the "
                f"{each.options.deadline:g} s of {each.alias!r}, whose breaker would never count "
                f"that it is late: give {each.alias!r} deadline = {options.deadline:g} too"
            )
    return options


def _together(members: Sequence[BaseDispatcher]) -> Capabilities:
    """Return what one of the members can, and what all of them promise."""
    each = [member.capabilities for member in members]
    some = {name: any(_takes(m, name) for m in members) for name in OPTIONS}
    some |= {name: any(getattr(c, name) for c in each) for name in ("queues", "worker")}
    every = ("confirmed", "durable", "retries", "kills", "batch")
    delays = [c.max_delay for c in each if c.delay]
    sizes = [c.max_size for c in each]
    return Capabilities(
        **some,
        **{name: all(getattr(c, name) for c in each) for name in every},
        max_delay=None if None in delays or not delays else max(filter(None, delays)),
        max_size=None if None in sizes else max(filter(None, sizes)),
    )


def _takes(member: BaseDispatcher, option: str) -> bool:
    return member.capabilities.supports(option) or option in member.options.waive


def _refuse_repeats(alias: str, members: Sequence[BaseDispatcher]) -> None:
    """Refuse `unknown = "next"` where work could run twice.

    Raises:
        ConfigurationError: The workers of the members share no idempotency store.
    """
    stores = {str(each.options.idempotency) for each in members}
    if len(stores) != 1 or stores & {"None", "memory"}:
        raise ConfigurationError(
            f'dispatcher {alias!r}: unknown = "next" may hand work over twice, and its members '
            f"share no idempotency store that would notice: give each of "
            f"{', '.join(repr(m.alias) for m in members)} the same `idempotency`"
        )


def _results(passage: Passage) -> list[Sent | Exception]:
    return [_result(answer) for answer in passage.answers()]


def _result(answer: DispatchResponse | tuple[PassedOver, ...]) -> Sent | Exception:
    if not isinstance(answer, DispatchResponse) or answer.status is DispatchStatus.UNKNOWN:
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
    values = {**response.__dict__, "elapsed": monotonic() - started}
    return build(DispatchResponse, values, response.__pydantic_private__)
