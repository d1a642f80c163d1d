"""`OnCommit`: the work goes out when the transaction is committed, and never otherwise (C7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from itertools import groupby
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.transaction import TransactionManagementError

from dispatchers import (
    BaseDispatcher,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    Sent,
    get_dispatcher,
)
from dispatchers.frameworks import collected, dispatcher_for, refused
from dispatchers.held import HoldingDispatcher

from ._connections import shared
from .signals import dispatched

__all__ = ["OnCommit", "OnResult", "holding"]

OnResult = Callable[[DispatchResponse], object]
"""Called with the final response of each request."""
Item = tuple[DispatchRequest, bytes]
T = TypeVar("T")

DEFERRED = Sent(status=DispatchStatus.DEFERRED, confirmed=False, durable=False)

holding: ContextVar[bool] = ContextVar("dispatchers_django_holding", default=False)
"""Whether the dispatch under way is one through `OnCommit`."""


class OnCommit:
    """Hands work over when the transaction is committed: for `.options(dispatcher=...)`.

    ::

        with transaction.atomic():
            user = User.objects.create(...)
            send_welcome.options(dispatcher=OnCommit()).dispatch(user_id=user.pk)

    A request is encoded and checked at once: what does not fit is `REJECTED` while somebody
    looks, the rest is `DEFERRED`. After a rollback, of a savepoint too, nothing is sent. A failure
    never leaves the commit: the final response goes to `on_result` and to the signal
    `dispatchers_django.signals.dispatched`.
    Outside a transaction there is nothing to wait for: the answer is the final response.

    One object may serve all threads, and the whole life of the process.

    Args:
        using: The alias of the database whose commit counts.

        on_result: Called with each final response. What it raises is logged, and goes nowhere.

        to: The alias of the dispatcher that gets the work; by default the task's own.
    """

    def __init__(
        self,
        using: str | None = None,
        on_result: OnResult | None = None,
        *,
        to: str | None = None,
    ) -> None:
        self._using = using or DEFAULT_DB_ALIAS
        self._on_result = on_result
        self._to = to

    @property
    def alias(self) -> str:
        """That of the dispatcher behind it, where one is named."""
        return self._to or "default"

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hold one request until the commit. Never raises an `Exception`."""
        held = self._holder(request)
        if isinstance(held, DispatchResponse):
            return held
        response = _marked(lambda: held.dispatch(request))
        return held.final.get(response.request_id, response)

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """The same from async code: in the thread whose connections its queries use."""
        return await sync_to_async(self.dispatch, thread_sensitive=True)(request)

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hold several requests; those of one task go out in one round trip."""
        listed, broken = collected(requests)
        groups = [list(group) for _, group in groupby(listed, _task)]
        answers = [each for group in groups for each in self._many(group)]
        if broken is not None:
            answers.append(refused(self.alias, None, broken))
        return DispatchResponses(answers)

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """The same from async code."""
        return await sync_to_async(self.dispatch_many, thread_sensitive=True)(requests)

    def __repr__(self) -> str:
        return f"<OnCommit {self.alias!r} using {self._using!r}>"

    def _many(self, requests: list[DispatchRequest]) -> Sequence[DispatchResponse]:
        held = self._holder(requests[0])
        if isinstance(held, DispatchResponse):
            return [held, *(refused(self.alias, each, _cause(held)) for each in requests[1:])]
        responses = _marked(lambda: held.dispatch_many(requests))
        return [held.final.get(each.request_id, each) for each in responses]

    def _holder(self, request: DispatchRequest) -> Holder | DispatchResponse:
        """What holds for the task's dispatcher; an answer where there is no such dispatcher."""
        try:
            to = get_dispatcher(self._to) if self._to else dispatcher_for(_task(request))
            return Holder(to, self._using, self._report)
        except Exception as exc:  # noqa: BLE001 - C1: there is no dispatcher yet that could answer
            return refused(self.alias, request, exc)

    def _report(self, response: DispatchResponse) -> None:
        dispatched.send_robust(sender=OnCommit, response=response, using=self._using)
        if self._on_result is not None:
            self._on_result(response)


def _task(request: object) -> str:
    """The task's name; of what is no request at all, none: the dispatcher says what it thinks."""
    return request.task if isinstance(request, DispatchRequest) else ""


def _cause(response: DispatchResponse) -> Exception:
    assert response.error is not None, "it was refused"
    return RejectedError(response.error.category, response.error.message)


def _marked(dispatch: Callable[[], T]) -> T:
    token = holding.set(True)
    try:
        return dispatch()
    finally:
        holding.reset(token)


class Holder(HoldingDispatcher):
    """Holds the requests of one call."""

    name = "on_commit"
    contract = 1

    def __init__(self, to: BaseDispatcher, using: str, on_result: OnResult) -> None:
        super().__init__(to, on_result)
        self._using = using
        self.final: dict[str, DispatchResponse] = {}
        """The final responses that are known already, by the request's id."""

    def _hold(self, request: DispatchRequest) -> None:
        self._hold_all([request])

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        del timeout
        self._hold_all([request for request, _ in items])
        return [DEFERRED] * len(items)

    def _hold_all(self, requests: Sequence[DispatchRequest]) -> None:
        connection = transaction.get_connection(self._using)
        if connection.connection is None and not connection.in_atomic_block:
            self._release(requests)  # on_commit would connect, only to find no transaction
            return
        try:
            connection.on_commit(lambda: self._release(requests), robust=True)
        except TransactionManagementError as exc:
            raise RejectedError(
                ErrorCategory.UNSUPPORTED,
                f"database {self._using!r} is in manual transaction management, which has no "
                "commit to wait for: use transaction.atomic(), or dispatch after the commit",
            ) from exc

    def _release(self, requests: Sequence[DispatchRequest]) -> None:
        token = holding.set(False)
        try:
            with shared():
                self.final.update({each.request_id: each for each in self.release(requests)})
        finally:
            holding.reset(token)
