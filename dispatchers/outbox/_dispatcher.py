"""`outbox`: work is a row in the application's database, and leaves once that is committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field

from dispatchers._config.api import get_dispatcher, state
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ErrorCategory
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.options import BackendOptions
from dispatchers._models.paths import absolute_spec
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._models.stats import Stats
from dispatchers._stores.loading import dead_letters
from dispatchers.backends._figures_behind import ask, told
from dispatchers.backends._held_work import Behind, counted, own_dead, stale
from dispatchers.backends._passing import PassingDispatcher, Unwaived, members_named
from dispatchers.forwarding import Fate, Forwarder, Settled

from ._errors import DOUBT, plainly
from ._insert import NewRow, insertion, row_lane
from ._letters import OutboxLetters
from ._loading import store_from
from ._results import Results
from ._rows import OutboxRows
from ._store import Store
from ._target import Target, certain_unless_alone

__all__ = ["OutboxDispatcher", "OutboxOptions", "outbox_to", "outboxes"]


class OutboxOptions(BackendOptions):
    """Options of `outbox`; what workers need stands at the dispatcher behind it."""

    to: Behind
    """The alias of the dispatcher that gets the work; in code the dispatcher itself, too."""
    store: Annotated[object, BeforeValidator(absolute_spec)]
    """The application's database: `sqlite:PATH`, `postgresql://...`, another URL of SQLAlchemy
    such as `mysql+pymysql://...`, `django:ALIAS`, or `module:attribute`, an engine of SQLAlchemy;
    in code the engine itself, too."""
    waive: Unwaived = ()
    """Nothing: it stands at the dispatcher behind it."""
    order: Literal["lane", "none"] = "lane"
    """`lane`: work of a lane (the header `lane`, else the queue) leaves in the order in which it
    was committed; `none`: nothing waits for what is refused before it."""
    notify: bool = True
    """PostgreSQL: each commit tells the relay. It makes commits wait for each other for a moment,
    which counts above some thousands a second: without, the relay looks every half second."""
    lease: float = Field(default=10.0, ge=1, le=3600)
    """Seconds without a sign of life after which another process hands over."""


class OutboxDispatcher(BaseDispatcher):
    """Writes work into a database, from which it is handed to another dispatcher.

    `Outbox` writes it in a transaction of the caller's; this by itself commits each row.
    """

    name = "outbox"
    contract = 1
    capabilities = PassingDispatcher.capabilities.model_copy(
        update={"dead_letters": True, "stats": True}
    )
    Options = OutboxOptions
    options: OutboxOptions
    # A database that swallows packets is waited for by the driver, which knows no deadline.
    guarded = True

    def __init__(
        self, options: OutboxOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        given = cast("OutboxOptions", self._validated(options, settings))
        (self.to,) = members_named((given.to,), alias or self.name)
        """The dispatcher that gets the work. Not owned, never closed."""
        can = {"stats": True, "dead_letters": True, "durable": True, "confirmed": True}
        self.capabilities = self.to.capabilities.model_copy(update={**can, "runs_here": False})
        super().__init__(given, alias=alias)
        self.store: Store = store_from(given.store, self.alias)
        """The application's database."""
        if self.store.target() is not None:
            self._guard = None  # the row belongs to the caller's thread
        self.results = Results()
        """What callers of this process want to be told."""
        self.rows = OutboxRows(
            self.store,
            self.to.alias,
            letters=self._other_letters,
            known=self._known,
            lease=given.lease,
            notify=given.notify,
            settled=self._settled,
        )
        """What waits."""
        self.forwarder = Forwarder(self.rows, self.to, in_lanes=given.order == "lane")
        """What hands over what waits."""
        self._own_letters = OutboxLetters(self.store, self.to.alias, self._known)

    @classmethod
    def stands_on(cls, options: BackendOptions) -> tuple[str, ...]:
        """Return the alias of the dispatcher behind it."""
        given = cast("OutboxOptions", options).to
        return (given,) if isinstance(given, str) else ()

    def row_of(self, request: DispatchRequest, body: bytes) -> NewRow:
        """Return the row of a request."""
        lane = row_lane(request, self.to.options.queue)
        return NewRow.of(request, body, self.to.alias, lane)

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return cast("Sent", self._send_many([(request, body)], timeout=timeout)[0])

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        if (target := self.store.target()) is None:
            with plainly():
                self.rows.put([self.row_of(*each) for each in items], timeout=timeout)
            return self._held(items, committed=True)
        with certain_unless_alone(target, self.store.category) as alone, plainly():
            target.write(self._statements(items), timeout, savepoint=False)
        return self._added(target, items, alone=alone)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if self.store.target() is None:
            return await super()._asend(request, body, timeout=timeout)
        return cast("Sent", (await self._asend_many([(request, body)], timeout=timeout))[0])

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        if (target := self.store.target()) is None:
            return await super()._asend_many(items, timeout=timeout)
        return await target.acall(lambda: self._send_many(items, timeout=timeout))

    def _statements(self, items: Sequence[Item]) -> list[tuple[str, list[object]]]:
        rows = [self.row_of(*each) for each in items]
        return list(insertion(self.store.dialect, rows, notify=self.options.notify))

    def _added(self, target: Target, items: Sequence[Item], *, alone: bool) -> Sequence[Sent]:
        """Answer for rows in a transaction of the caller's, or committed by themselves."""
        if not alone:
            target.follow(self._ended)
        return self._held(items, committed=alone)

    def _held(self, items: Sequence[Item], *, committed: bool) -> Sequence[Sent]:
        if committed:
            self.store.committed(self.forwarder)
        held = DispatchStatus.DEFERRED
        return [Sent(each.id, held, confirmed=committed, durable=committed) for each, _ in items]

    def _ended(self, committed: bool) -> None:
        if committed:
            self.store.committed(self.forwarder)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return self.store.category(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return self.store.category(exc) in DOUBT

    def _settled(self, settled: Sequence[Settled]) -> None:
        self.results.settled(settled)
        for each in settled:
            if each.fate is not Fate.STAYS and each.response is not None:
                self.store.settled(each.response)

    def _known(self) -> list[str]:
        """Return the aliases whose rows other outboxes of this database hand over."""
        return [
            each.to.alias
            for each in outboxes()
            if each.to.alias != self.to.alias and each.options.store == self.options.store
        ]

    # The rest of a backend.

    def _probe(self, *, timeout: float) -> Sequence[str]:
        return stale(self._waiting(timeout), "the outbox", self.alias)

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        """Count what waits here, by lane, together with what the dispatcher behind it counts."""
        held = self._waiting(timeout)
        behind, failed = ask([self.to], timeout)
        dead = own_dead(self, self.to)
        return told(counted(held, behind[self.to.alias], dead), failed)

    def _waiting(self, timeout: float) -> dict[str, tuple[int, float]]:
        with plainly():
            return self.rows.by_lane(timeout=timeout)

    @property
    def run_by(self) -> str | None:
        """The program that runs the work of the dispatcher behind it."""
        return self.to.run_by

    def _worker(self, options: WorkerOptions) -> Worker:
        return self.to._worker(options)

    def _forwarders(self) -> Sequence[Forwarder]:
        return (self.forwarder,)

    def _other_letters(self) -> DeadLetterStore | None:
        spec = self.options.dead_letters
        return None if spec is None else dead_letters(spec)

    def _dead_letters(self) -> DeadLetterStore:
        return self._other_letters() or self._own_letters

    def _close(self, timeout: float) -> int:
        self.forwarder.stop(timeout)
        self.store.close(timeout)
        return 0


def outboxes() -> Iterator[OutboxDispatcher]:
    """Yield the outboxes of the target; no other dispatcher is built."""
    for alias in sorted(state.snapshot.aliases()):
        if _is_outbox(alias):
            found = get_dispatcher(alias)
            if isinstance(found, OutboxDispatcher):
                yield found


def _is_outbox(alias: str) -> bool:
    try:
        cls: Any = state.snapshot.specification(alias).cls
    except Exception:  # noqa: BLE001 - an object, or one that cannot be used: its own use tells
        return isinstance(state.snapshot.objects.get(alias), OutboxDispatcher)
    return issubclass(cls, OutboxDispatcher)


def outbox_to(found: BaseDispatcher) -> OutboxDispatcher | None:
    """Return a dispatcher that is an outbox, or the outbox that hands over to it."""
    if isinstance(found, OutboxDispatcher):
        return found
    return next((each for each in outboxes() if each.to.alias == found.alias), None)
