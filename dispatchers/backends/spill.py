"""`spill`: keep work in a local file while a broker certainly takes none.

It is handed over in order when the broker is back. The answer of what is kept is `DEFERRED`, and
`durable`: it survives `kill -9` of every process, as long as the file's disk is there. A thread of
one process hands it over, or `dispatchers relay`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field

from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._dispatch.batch import is_hurried
from dispatchers._dispatch.protocol import Item, Sent
from dispatchers._dispatch.worker_protocol import Worker, WorkerOptions
from dispatchers._errors import ConfigurationError, ErrorCategory, RejectedError
from dispatchers._models.base import build
from dispatchers._models.capabilities import Capabilities
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.options import BackendOptions
from dispatchers._models.paths import FilePath
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import DispatchStatus
from dispatchers._models.stats import Stats
from dispatchers._runtime.platform import passing_filesystem, remote_filesystem
from dispatchers._runtime.to_thread import off_loop
from dispatchers._stores.loading import dead_letters
from dispatchers.backends._figures_behind import ask, told
from dispatchers.backends._held_work import Behind, counted, lane_of, own_dead, stale
from dispatchers.backends._passage import Member, Passage
from dispatchers.backends._passing import (
    MOVES,
    Categories,
    PassingDispatcher,
    Unwaived,
    members_named,
)
from dispatchers.backends.sqlite import category_of
from dispatchers.forwarding import Forwarder
from dispatchers.sqlite import Database, SQLiteDeadLetters, StoreError, Synchronous
from dispatchers.sqlite._held import Bounds, HeldRows, NewRow

__all__ = ["SpillDispatcher", "SpillOptions"]

DEFERRED = DispatchStatus.DEFERRED

UNITS = {
    "": 1,
    "b": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}


Lane = Callable[[DispatchRequest], str]


def _as_bytes(value: object) -> object:
    """Return the bytes that a text such as `4 GiB` means."""
    if not isinstance(value, str):
        return value
    number = value.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = value[len(number) :].strip().lower()
    if unit not in UNITS or not number.replace(".", "", 1).isdecimal():
        raise ValueError("is a number of bytes, or a text such as '4 GiB'")
    return int(float(number) * UNITS[unit])


class SpillOptions(BackendOptions):
    """Options of `spill`; what workers need stands at the dispatcher that it is before."""

    to: Behind
    """The alias of the dispatcher that gets the work; in code the dispatcher itself, too."""
    waive: Unwaived = ()
    """Nothing: it stands at the dispatcher behind it."""
    path: Annotated[FilePath, Field(min_length=1)]
    """The file, created on first use, readable by its owner only; its directory has to exist."""
    order: Literal["lane", "none"] = "lane"
    """`lane`: what comes later of a lane (the header `lane`, else the queue) waits behind what is
    held; `none`: it goes straight out."""
    max_items: int = Field(default=1_000_000, ge=1)
    """Pieces of work that the file holds; beyond that the answer is `rejected`, `capacity`."""
    max_bytes: Annotated[int, BeforeValidator(_as_bytes), Field(ge=1)] = 4 * 2**30
    """Bytes of envelopes that the file holds: a number, or `"4 GiB"`."""
    max_age: float = Field(default=86400.0, gt=0)
    """Seconds after which what is held becomes a dead letter."""
    on: Categories = MOVES
    """The categories of a rejection after which work is kept."""
    synchronous: Synchronous = "full"
    """`full` survives a loss of power; `normal` is faster and survives the loss of processes."""
    lease: float = Field(default=10.0, ge=1, le=3600)
    """Seconds without a sign of life after which another process hands over what is held."""
    deadline: float = Field(default=2.0, gt=0, le=3600)
    """Seconds for the broker and the file together; by default those of the broker."""


class _File(BaseDispatcher):
    """The file as a dispatcher: what it takes is `DEFERRED`.

    It can do what the dispatcher behind it can, which gets everything that it takes.
    """

    name = "spill"
    contract = 1
    capabilities = Capabilities()
    shares_sending = True  # callers share a commit, and with it the wait for the disk

    def __init__(self, alias: str, to: BaseDispatcher, rows: HeldRows, lane: Lane) -> None:
        self.capabilities = to.capabilities.model_copy(
            update={"runs_here": False, "worker": False, "stats": False, "durable": True}
        )
        kept = ("queue", "queues", "waive")
        given = {name: getattr(to.options, name) for name in kept}
        values = {**BackendOptions().__dict__, **given, "breaker": False}
        super().__init__(build(BackendOptions, values), alias=alias)
        self._rows, self._lane = rows, lane

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        answer = self._send_many([(request, body)], timeout=timeout)[0]
        assert isinstance(answer, Sent), "all or none"
        return answer

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        rows = [
            NewRow(request.id, request.task, self._lane(request), body, request.deduplicate)
            for request, body in items
        ]
        self._rows.put(rows, timeout=timeout)
        held = DEFERRED
        return [Sent(row.id, held, confirmed=True, durable=True) for row in rows]

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        # Held twice is held once: the file knows the id.
        return not isinstance(exc, StoreError) or exc.maybe_written


class SpillDispatcher(PassingDispatcher):
    """Hands over to one dispatcher, and keeps in a file what that certainly does not take."""

    name = "spill"
    contract = 1
    capabilities = PassingDispatcher.capabilities.model_copy(update={"dead_letters": True})
    Options = SpillOptions
    options: SpillOptions

    def __init__(
        self, options: SpillOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        given = cast("SpillOptions", self._validated(options, settings))
        (self.to,) = members_named((given.to,), alias or self.name)
        """The dispatcher that gets the work. Not owned, never closed."""
        can = self.to.capabilities
        self.capabilities = can.model_copy(update={"stats": True, "dead_letters": True})
        super().__init__(_with_deadline(given, self.to, alias or self.name), alias=alias)
        self._database = Database(self.options.path, synchronous=self.options.synchronous)
        bounds = Bounds(self.options.max_items, self.options.max_bytes, self.options.max_age)
        self.held = HeldRows(self._database, bounds, self._dead_letters, lease=self.options.lease)
        """What is held."""
        self._file = _File(self.alias, self.to, self.held, self.lane_of)
        self._ways = Member.each_of([self.to, self._file])
        self._moves = frozenset(self.options.on)
        in_lanes = self.options.order == "lane"
        self.forwarder = Forwarder(self.held, self.to, in_lanes=in_lanes)
        """What hands over what is held."""
        self._looked = False

    @classmethod
    def stands_on(cls, options: BackendOptions) -> tuple[str, ...]:
        """Return the alias of the dispatcher behind it."""
        given = cast("SpillOptions", options).to
        return (given,) if isinstance(given, str) else ()

    def lane_of(self, request: DispatchRequest) -> str:
        """Return the lane of a request: its header `lane`, else its queue."""
        return lane_of(request, self.to.options.queue)

    # Handing over.

    def _passage(self, items: Sequence[Item], timeout: float) -> Passage:
        requests = [request for request, _ in items]
        behind = self._behind(requests, timeout)
        return Passage(
            self._ways,
            self._moves,
            requests,
            timeout,
            queue=self.options.queue,
            past_first=behind,
        )

    def _behind(self, requests: Sequence[DispatchRequest], timeout: float) -> set[int]:
        """Return the places of requests whose lanes have work in the file (F8)."""
        if self.options.order == "none":
            return set()
        lanes = [self.lane_of(request) for request in requests]
        try:
            held = self.held.lanes(set(lanes), timeout=timeout)
        except StoreError as exc:
            # Certainly not handed over: to go past the file would break the order.
            raise RejectedError.because(exc, category_of(exc)) from exc
        return {place for place, lane in enumerate(lanes) if lane in held}

    async def _apassage(self, items: Sequence[Item], timeout: float) -> Passage:
        # On a thread, for the file may be waited for.
        return await off_loop(self._passage, items, timeout)

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        answers = super()._send_many(items, timeout=timeout)
        self._follow(answers)
        return answers

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        answers = await super()._asend_many(items, timeout=timeout)
        self._follow(answers)
        return answers

    def _follow(self, answers: Sequence[Sent | Exception]) -> None:
        """Have the forwarder begin where something was kept, and go on where the broker is back."""
        taken = [each for each in answers if isinstance(each, Sent)]
        # Once without, for what an earlier process may have left.
        left, self._looked = not self._looked and Path(self.options.path).exists(), True
        if left or any(each.status is DEFERRED for each in taken):
            self.forwarder.start()
        elif taken and self.forwarder.is_pausing:
            self.forwarder.wake()

    # The rest of a backend.

    def _check(self) -> None:
        folder = Path(self.options.path).parent
        if not folder.is_dir():
            raise ConfigurationError(f"dispatcher {self.alias!r}: no directory {folder}: make it")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"dispatcher {self.alias!r}: {folder} cannot be written: let this process write it"
            )

    def _probe(self, *, timeout: float) -> Sequence[str]:
        warnings: list[str] = []
        if (kind := passing_filesystem(self.options.path)) is not None:
            warnings.append(
                f"{self.options.path} is on {kind}: what it holds is gone with the container; "
                "mount a volume there"
            )
        if (kind := remote_filesystem(self.options.path)) is not None:
            warnings.append(
                f"{self.options.path} is on {kind}, which machines share, and SQLite's log is of "
                "one machine: choose a local disk"
            )
        held = self.held.by_lane(timeout=timeout)
        return [*warnings, *stale(held, self.options.path, self.alias)]

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        """Count what is held, by lane, together with what the dispatcher behind it counts."""
        held = self.held.by_lane(timeout=timeout)
        behind, failed = ask([self.to], timeout)
        dead = own_dead(self, self.to)
        return told(counted(held, behind[self.to.alias], dead), failed)

    @property
    def run_by(self) -> str | None:
        """The program that runs the work of the dispatcher behind it."""
        return self.to.run_by

    def _worker(self, options: WorkerOptions) -> Worker:
        return self.to._worker(options)

    def _forwarders(self) -> Sequence[Forwarder]:
        return (self.forwarder,)

    def _dead_letters(self) -> DeadLetterStore:
        spec = self.options.dead_letters
        return SQLiteDeadLetters(self._database) if spec is None else dead_letters(spec)

    def _close(self, timeout: float) -> int:
        self.forwarder.stop(timeout)
        self._database.close(timeout)
        return 0


def _with_deadline(options: SpillOptions, to: BaseDispatcher, alias: str) -> SpillOptions:
    if "deadline" not in options.model_fields_set:
        return build(SpillOptions, {**options.__dict__, "deadline": to.options.deadline})
    if is_hurried(options.deadline, to.options.deadline):
        raise ConfigurationError(
            f"dispatcher {alias!r}: deadline = {options.deadline:g} is less than half of the "
            f"{to.options.deadline:g} s of {to.alias!r}, whose breaker would never count that it "
            f"is late: give {to.alias!r} deadline = {options.deadline:g} too"
        )
    return options
