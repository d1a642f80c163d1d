"""`Outbox`: the work is a row in a transaction of the caller's, beside the data it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from dispatchers._config.api import get_dispatcher
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._errors import ConfigurationError, ErrorCategory, RejectedError
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchResponse, DispatchResponses, DispatchStatus
from dispatchers.frameworks import collected, dispatcher_for, refused
from dispatchers.held import HoldingDispatcher

from ._dispatcher import OutboxDispatcher, outbox_to
from ._errors import DOUBT, category_of, plainly
from ._insert import insertion
from ._results import OnResult, tell
from ._target import Target, certain_unless_alone
from ._targets import target_of

__all__ = ["Outbox"]

ROLLED_BACK = "the transaction was rolled back"


class Outbox:
    """Adds work to a transaction of the caller's: for `.options(dispatcher=...)`.

    ::

        with Session(engine) as session, session.begin():
            session.add(Order(number=42))
            send_receipt.options(dispatcher=Outbox(session)).dispatch(order=42)

    A request is encoded and checked at once, against what the dispatcher can do that gets it: what
    does not fit is `REJECTED` in the call, the rest is `DEFERRED`, and exists if the transaction is
    committed. Nothing here commits, rolls back, or opens a connection.

    Args:
        connection: A connection of `sqlite3`, psycopg 3 or asyncpg, or a `Session`,
            `AsyncSession`, `Connection` or `AsyncConnection` of SQLAlchemy 2. Not owned, never
            closed. With what is asynchronous, `adispatch` and `adispatch_many` only.

        to: The alias of a dispatcher of backend `outbox`, or of the one that it hands over to; by
            default the task's own.

        on_result: Called with each final response, where this process hands over: after a commit
            of a SQLAlchemy session; and with `REJECTED`, category `closed`, after its rollback.
            It is called by another thread, and must not be async.

        savepoint: Add each row within a savepoint. On PostgreSQL an insert that fails would end
            the transaction otherwise, as it should if the work belongs to the data.

    Raises:
        TypeError: `on_result` cannot be called.
    """

    def __init__(
        self,
        connection: Any,
        to: str | None = None,
        on_result: OnResult | None = None,
        *,
        savepoint: bool = False,
    ) -> None:
        if on_result is not None and not callable(on_result):
            raise TypeError(f"on_result is called with responses, not {type(on_result).__name__}")
        self._connection, self._to = connection, to
        self._on_result, self._savepoint = on_result, savepoint
        self._target: Target | None = None

    @property
    def alias(self) -> str:
        """That of the dispatcher behind it, where one is named."""
        return self._to or "default"

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Add one request to the transaction. Never raises an `Exception`."""
        writer = self._writer(request)
        return writer if isinstance(writer, DispatchResponse) else writer.dispatch(request)

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """The same from async code."""
        writer = self._writer(request)
        return writer if isinstance(writer, DispatchResponse) else await writer.adispatch(request)

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Add several requests; those of one task in one statement."""
        listed, broken = collected(requests)
        answers: list[DispatchResponse] = []
        for group in _groups(listed):
            writer = self._writer(group[0])
            answers += (
                self._none(writer, group)
                if isinstance(writer, DispatchResponse)
                else writer.dispatch_many(group)
            )
        return self._all(answers, broken)

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """The same from async code."""
        listed, broken = collected(requests)
        answers: list[DispatchResponse] = []
        for group in _groups(listed):
            writer = self._writer(group[0])
            answers += (
                self._none(writer, group)
                if isinstance(writer, DispatchResponse)
                else await writer.adispatch_many(group)
            )
        return self._all(answers, broken)

    def __repr__(self) -> str:
        return f"<Outbox {self.alias!r} in {type(self._connection).__name__}>"

    def _all(self, answers: list[DispatchResponse], broken: Exception | None) -> DispatchResponses:
        if broken is not None:
            answers.append(refused(self.alias, None, broken))
        return DispatchResponses(answers)

    def _none(
        self, first: DispatchResponse, group: Sequence[DispatchRequest]
    ) -> list[DispatchResponse]:
        assert first.error is not None, "it was refused"
        cause = RejectedError(first.error.category, first.error.message)
        return [first, *(refused(self.alias, each, cause) for each in group[1:])]

    def _writer(self, request: DispatchRequest) -> Writer | DispatchResponse:
        """Return the writer for a task's outbox, or the answer where there is none."""
        try:
            if self._target is None:
                self._target = target_of(self._connection)
            return Writer.of(_outbox(self._to, _task(request))).bound(
                self._target, self._on_result, savepoint=self._savepoint
            )
        except Exception as exc:  # noqa: BLE001 - C1: no dispatcher exists yet that could answer
            category = category_of(exc)  # a session of SQLAlchemy without an engine, say
            return refused(
                self.alias, request, RejectedError.because(exc, category) if category else exc
            )


def _task(request: object) -> str:
    """Return the task's name; empty for other objects, which the dispatcher refuses."""
    return request.task if isinstance(request, DispatchRequest) else ""


def _groups(requests: Sequence[DispatchRequest]) -> list[list[DispatchRequest]]:
    # Neighbours only, so that the answers stay in the order of the requests.
    return [list(group) for _, group in groupby(requests, _task)]


def _outbox(to: str | None, task: str) -> OutboxDispatcher:
    """Return the outbox of an alias, or of a task.

    Raises:
        ConfigurationError: There is none: what is written would never leave.
    """
    behind = get_dispatcher(to) if to else dispatcher_for(task)
    found = outbox_to(behind)
    if found is None:
        raise ConfigurationError(
            f"no dispatcher of backend 'outbox' hands over to {behind.alias!r}, and what is "
            "written into the transaction would never leave: configure one, "
            f'{{ backend = "outbox", to = {behind.alias!r}, store = ... }}'
        )
    return found


class Writer(HoldingDispatcher):
    """Adds the requests of one call to a transaction."""

    name = "outbox"
    contract = 1
    _target: Target
    _on_commit: OnResult | None
    _savepoint: bool

    def __init__(self, outbox: OutboxDispatcher) -> None:
        super().__init__(outbox)
        self._outbox = outbox
        # Made once, for the copies that serve the calls.
        _ = self._limits, self._sharing

    @classmethod
    def of(cls, outbox: OutboxDispatcher) -> Writer:
        """Return the writer of an outbox, made once."""
        found = _writers.get(outbox)
        if found is None:
            found = _writers[outbox] = cls(outbox)
        return found

    def bound(self, target: Target, on_result: OnResult | None, *, savepoint: bool) -> Writer:
        """Return a writer into one transaction."""
        twin: Writer = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin._target, twin._on_commit, twin._savepoint = target, on_result, savepoint
        return twin

    def _hold(self, request: DispatchRequest) -> None:
        raise NotImplementedError("rows hold it")

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        answer = self._send_many([(request, body)], timeout=timeout)[0]
        assert isinstance(answer, Sent), "all or none"
        return answer

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        statements = self._statements(items)
        with certain_unless_alone(self._target, category_of) as alone, plainly():
            savepoint = self._needs_savepoint(statements, alone=alone)
            self._target.write(statements, timeout, savepoint=savepoint)
        return self._written(items, alone=alone)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        answer = (await self._asend_many([(request, body)], timeout=timeout))[0]
        assert isinstance(answer, Sent), "all or none"
        return answer

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        statements = self._statements(items)
        with certain_unless_alone(self._target, category_of) as alone, plainly():
            savepoint = self._needs_savepoint(statements, alone=alone)
            async with asyncio.timeout(timeout):
                await self._target.awrite(statements, timeout, savepoint=savepoint)
        return self._written(items, alone=alone)

    def _needs_savepoint(self, statements: Sequence[object], *, alone: bool) -> bool:
        # Of several statements one that fails must not leave those before it. In a transaction of
        # PostgreSQL it does not: it ends the transaction.
        ends = self._target.dialect == "postgresql" and not alone
        return self._savepoint or (len(statements) > 1 and not ends)

    def _statements(self, items: Sequence[Item]) -> list[tuple[str, list[object]]]:
        rows = [self._outbox.row_of(request, body) for request, body in items]
        notify = self._outbox.options.notify
        return list(insertion(self._target.dialect, rows, notify=notify))

    def _written(self, items: Sequence[Item], *, alone: bool) -> Sequence[Sent]:
        requests = [request for request, _ in items]
        if alone:
            self._ended(requests, committed=True)
        else:
            self._target.follow(lambda committed: self._ended(requests, committed=committed))
        held = DispatchStatus.DEFERRED
        return [Sent(each.id, held, confirmed=alone, durable=alone) for each in requests]

    def _ended(self, requests: Sequence[DispatchRequest], *, committed: bool) -> None:
        """Hand over in the background, or tell that there is nothing to hand over."""
        if not committed:
            self._tell_dropped(requests)
            return
        if self._on_commit is not None:
            self._outbox.results.expect([each.id for each in requests], self._on_commit)
        self._outbox.forwarder.notice()

    def _tell_dropped(self, requests: Sequence[DispatchRequest]) -> None:
        if self._on_commit is None:
            return
        error = RejectedError(ErrorCategory.CLOSED, ROLLED_BACK)
        dropped = self._refused(requests, error, monotonic(), contacted=False, hurried=False)
        for response in dropped:
            tell(self._on_commit, response)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return category_of(exc) in DOUBT


_writers: WeakKeyDictionary[OutboxDispatcher, Writer] = WeakKeyDictionary()
