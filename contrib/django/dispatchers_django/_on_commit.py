"""`OnCommit`: the work goes out when the transaction is committed, and never otherwise (C7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from dispatchers import (
    BaseDispatcher,
    ConfigurationError,
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
from ._outbox_results import Expected
from .outbox import database_of
from .signals import dispatched

__all__ = ["OnCommit", "OnResult", "holding"]

OnResult = Callable[[DispatchResponse], object]
"""Called with the final response of each request."""
Item = tuple[DispatchRequest, bytes]
T = TypeVar("T")

DEFERRED = Sent(status=DispatchStatus.DEFERRED, confirmed=False, durable=False)

holding: ContextVar[frozenset[str]] = ContextVar("dispatchers_django_holding", default=frozenset())
"""The databases whose commit the dispatch under way waits for."""


class OnCommit:
    """Hands work over when the transaction is committed: for `.options(dispatcher=...)`.

    ::

        with transaction.atomic():
            user = User.objects.create(...)
            send_welcome.options(dispatcher=OnCommit()).dispatch(user_id=user.pk)

    A request is encoded and checked at once: what does not fit is `REJECTED` in the call,
    the rest is `DEFERRED`. After a rollback, of a savepoint too, nothing is sent. A failure
    never leaves the commit: the final response goes to `on_result` and to the signal
    `dispatchers_django.signals.dispatched`.
    Outside a transaction there is nothing to wait for: the answer is the final response.

    One object may serve all threads, and the whole life of the process.

    Args:
        using: The alias of the database whose commit counts; None is every database with an open
            transaction, and the work goes out after the last of their commits.

        on_result: Called with each final response. An exception of its is logged, nothing more.

        to: The alias of the dispatcher that gets the work; by default the task's own.

    Raises:
        TypeError: `on_result` cannot be called.
    """

    def __init__(
        self,
        using: str | None = None,
        on_result: OnResult | None = None,
        *,
        to: str | None = None,
    ) -> None:
        if on_result is not None and not callable(on_result):
            raise TypeError(f"on_result is called with responses, not {type(on_result).__name__}")
        self._using = using
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
        if isinstance(held, Beside):
            return held.dispatch(request)
        response = held.marked(lambda: held.dispatch(request))
        return held.final.get(response.request_id, response)

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """The same from async code: in the thread whose connections its queries use."""
        return await sync_to_async(self.dispatch, thread_sensitive=True)(request)

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hold several requests; those of one task go out in one round trip."""
        listed, broken = collected(requests)
        # Neighbours only, so that the answers stay in the order of the requests.
        groups = [list(group) for _, group in groupby(listed, _task)]
        answers = [each for group in groups for each in self._many(group)]
        if broken is not None:
            answers.append(refused(self.alias, None, broken))
        return DispatchResponses(answers)

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """The same from async code."""
        return await sync_to_async(self.dispatch_many, thread_sensitive=True)(requests)

    def __repr__(self) -> str:
        return f"<OnCommit {self.alias!r} using {self._using or 'every open transaction'!r}>"

    def _many(self, requests: list[DispatchRequest]) -> Sequence[DispatchResponse]:
        held = self._holder(requests[0])
        if isinstance(held, DispatchResponse):
            return [held, *(refused(self.alias, each, _cause(held)) for each in requests[1:])]
        if isinstance(held, Beside):
            return held.dispatch_many(requests)
        responses = held.marked(lambda: held.dispatch_many(requests))
        return [held.final.get(each.request_id, each) for each in responses]

    def _holder(self, request: DispatchRequest) -> Holder | Beside | DispatchResponse:
        """Return the holder for the task's dispatcher, or the answer where there is none."""
        try:
            to = get_dispatcher(self._to) if self._to else dispatcher_for(_task(request))
            using = _open_transactions(self._using)
            # It has a row in the very transaction: to wait would lose it between commit and row.
            if (place := database_of(to)) and not _others(using, place):
                return Beside(to, place, self._on_result)
            return Holder(to, using, self._report)
        except Exception as exc:  # noqa: BLE001 - C1: no dispatcher exists yet that could answer
            return refused(self.alias, request, exc)

    def _report(self, response: DispatchResponse) -> None:
        using = self._using or DEFAULT_DB_ALIAS
        # Robust: a receiver that raises must not keep `on_result` from being called.
        dispatched.send_robust(sender=OnCommit, response=response, using=using)
        if self._on_result is not None:
            self._on_result(response)


def _task(request: object) -> str:
    """Return the task's name; empty for other objects, which the dispatcher refuses."""
    return request.task if isinstance(request, DispatchRequest) else ""


def _cause(response: DispatchResponse) -> Exception:
    assert response.error is not None, "it was refused"
    return RejectedError(response.error.category, response.error.message)


def _open_transactions(using: str | None) -> list[str]:
    """Return the databases whose commit counts: the one named, or all with a transaction.

    Raises:
        ConfigurationError: There is no such database.
    """
    if using is not None:
        if using not in connections.settings:
            known = ", ".join(map(repr, connections.settings))
            raise ConfigurationError(
                f"OnCommit(using={using!r}): there is no such database in settings.DATABASES, "
                f"which has {known}"
            )
        return [using]
    found = [each.alias for each in connections.all(initialized_only=True) if is_open(each)]
    return found or [DEFAULT_DB_ALIAS]


def _others(using: Sequence[str], place: str) -> bool:
    """Tell whether a transaction is waited for that is not in this database."""
    return any(each != place and is_open(connections[each]) for each in using)


def is_open(connection: Any) -> bool:
    """Return whether a transaction is open that is not a `TestCase`'s own."""
    if connection.in_atomic_block:
        return any(not block._from_testcase for block in connection.atomic_blocks)
    return connection.connection is not None and not connection.get_autocommit()


class Beside:
    """Dispatches to an outbox, whose row is in the transaction that is waited for.

    Args:
        outbox: The dispatcher.

        place: The alias of its database.

        on_result: Called with the final responses, by the thread that hands over.
    """

    def __init__(self, outbox: BaseDispatcher, place: str, on_result: OnResult | None) -> None:
        self._outbox, self._place, self._on_result = outbox, place, on_result

    def dispatch(self, request: DispatchRequest) -> DispatchResponse:
        """Write one row."""
        expected = self._expected([request])
        response = self._outbox.dispatch(request)
        self._follow([response], expected)
        return response

    def dispatch_many(self, requests: Sequence[DispatchRequest]) -> Sequence[DispatchResponse]:
        """Write several rows."""
        expected = self._expected(requests)
        responses = self._outbox.dispatch_many(requests)
        self._follow(responses, expected)
        return responses

    def _expected(self, requests: Sequence[object]) -> dict[str, Expected]:
        # Before they are written: what is committed at once may be handed over before the answer.
        if self._on_result is None:
            return {}
        asked = [each for each in requests if isinstance(each, DispatchRequest)]
        return {each.id: Expected(each.id, self._on_result) for each in asked}

    def _follow(self, responses: Sequence[DispatchResponse], expected: dict[str, Expected]) -> None:
        """Wait for the responses as long as Django's callbacks live: a rollback drops them."""
        for each in responses:
            waits = expected.get(each.request_id)
            if waits is None or not each.ok:
                continue
            if each.durable:
                waits()
            else:
                self._keep(waits)

    def _keep(self, waits: Expected) -> None:
        connection = connections[self._place]
        if connection.in_atomic_block:
            connection.on_commit(waits, robust=True)
        else:  # of a transaction that Django does not manage the end is not known
            waits()


class Holder(HoldingDispatcher):
    """Holds the requests of one call."""

    name = "on_commit"
    contract = 1

    def __init__(self, to: BaseDispatcher, using: Sequence[str], on_result: OnResult) -> None:
        super().__init__(to, on_result)
        self._using = using
        self.final: dict[str, DispatchResponse] = {}
        """The final responses that are known already, by the request's id."""

    def marked(self, dispatch: Callable[[], T]) -> T:
        """Call a function as a dispatch that waits for these databases."""
        token = holding.set(frozenset(self._using))
        try:
            return dispatch()
        finally:
            holding.reset(token)

    def _hold(self, request: DispatchRequest) -> None:
        self._hold_all([request])

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        del timeout
        self._hold_all([request for request, _ in items])
        return [DEFERRED] * len(items)

    def _hold_all(self, requests: Sequence[DispatchRequest]) -> None:
        found = [transaction.get_connection(using) for using in self._using]
        waiting = [each for each in found if each.connection is not None or each.in_atomic_block]
        if not waiting:  # on_commit would connect, only to find no transaction
            self._release(requests)
            return
        for each in waiting:
            _refuse_manual(each)
        left = {each.alias for each in waiting}

        def committed(alias: str) -> None:
            left.discard(alias)
            if not left:  # after a rollback of one of them it never gets there
                self._release(requests)

        for each in waiting:
            # Robust, as an error in here must not stop the application's other callbacks.
            each.on_commit(partial(committed, each.alias), robust=True)

    def _release(self, requests: Sequence[DispatchRequest]) -> None:
        # The hand-over itself waits for nothing: a backend on this database writes at once.
        token = holding.set(frozenset())
        try:
            with shared():
                self.final.update({each.request_id: each for each in self.release(requests)})
        finally:
            holding.reset(token)


def _refuse_manual(connection: Any) -> None:
    """Refuse a connection whose transactions nothing ends.

    Raises:
        RejectedError: Django would raise in `on_commit`.
    """
    if not connection.in_atomic_block and not connection.get_autocommit():
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            f"database {connection.alias!r} is in manual transaction management, which has no "
            "commit to wait for: use transaction.atomic(), or dispatch after the commit",
        )
