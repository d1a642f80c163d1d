"""The worker's core: decode an envelope, find its task, run it, and say what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import hooks
from ._beats import Heartbeat, beater
from ._envelope import decode
from ._idempotency import IdempotencyStore
from ._judgement import after_failure, succeeded, unfit
from ._loops import limited, run_coroutine
from ._opening import Unfit, opened
from ._options import OnHandlerError
from ._outcome import Action, Outcome, Reason
from ._request import DispatchRequest, new_id

if TYPE_CHECKING:
    from ._task import AnyTask

__all__ = ["Run", "RunSettings", "arun_envelope", "current_run", "run_envelope", "run_here"]

log = logging.getLogger("dispatchers")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a worker's configuration says about runs."""

    on_handler_error: OnHandlerError | None = None
    """Where the task says nothing itself; None is `raise`."""
    idempotency: IdempotencyStore | None = None
    """Where runs are remembered; None runs every delivery."""
    claim_ttl: float = 60.0
    """Seconds until a claim that nobody renews is free again."""
    remember: float = 86400.0
    """Seconds that a finished key is remembered."""
    max_deliveries: int = 5
    """Work that was delivered more often without an outcome is dead."""
    skew_grace: float = 900.0
    """Seconds that what this worker does not understand is handed back."""


DEFAULTS = RunSettings()


class Run:
    """One execution attempt of a task by a worker, as its handler sees it."""

    __slots__ = (
        "_body",
        "_request",
        "_stopping",
        "attempt",
        "deliveries",
        "envelope",
        "lease",
        "started",
        "task",
        "until",
    )

    def __init__(
        self,
        task: AnyTask,
        envelope: dict[str, Any],
        body: bytes,
        attempt: int,
        deliveries: int,
        stopping: Callable[[], bool] | None,
    ) -> None:
        self.task = task
        """The task that runs."""
        self.attempt = attempt
        """1 for the first."""
        self.deliveries = deliveries
        """How often this attempt was handed to a worker, this time included."""
        self.envelope = envelope
        self.lease: tuple[Heartbeat, ...] = ()
        self.started = monotonic()
        limit = envelope.get("time_limit") or task.time_limit
        self.until: float | None = None if limit is None else self.started + limit
        self._body = body
        self._stopping = stopping
        self._request: DispatchRequest | None = None

    @property
    def request(self) -> DispatchRequest:
        """What was dispatched."""
        if self._request is None:
            self._request = decode(self._body)
        return self._request

    @property
    def time_left(self) -> float | None:
        """Seconds until the time limit, negative beyond it; None without one."""
        return None if self.until is None else self.until - monotonic()

    @property
    def lease_lost(self) -> bool:
        """Another worker may have this work by now; the result of this run will not count."""
        return any(beat.lost for beat in self.lease)

    @property
    def stopping(self) -> bool:
        """The worker is shutting down."""
        return self._stopping is not None and self._stopping()

    @property
    def should_stop(self) -> bool:
        """Give up soon: the worker stops, the lease is lost, or the time limit has passed.

        Raise `Retry()` to have the work run again; while the worker stops that is no attempt.
        """
        left = self.time_left
        return self.stopping or self.lease_lost or (left is not None and left <= 0)

    @property
    def max_attempts(self) -> int:
        """How many attempts there may be."""
        return self.envelope.get("max_attempts") or self.task.max_attempts or 1

    def __repr__(self) -> str:
        return f"Run(task={self.task.name!r}, attempt={self.attempt})"


_current: ContextVar[Run] = ContextVar("dispatchers_run")


def current_run() -> Run:
    """The run that this code is part of: its request, attempt, deliveries, time and stop signs.

    Raises:
        LookupError: No task is running here; a plain call of a task's function is no run.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError(
            "no run: current_run() works while a worker or an in-process backend runs a task"
        ) from None


def run_envelope(
    body: bytes,
    *,
    attempt: int = 1,
    deliveries: int = 1,
    heartbeat: Heartbeat | None = None,
    settings: RunSettings = DEFAULTS,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """Run one envelope and say what became of it. Raises no `Exception`.

    An async task is run to its end on an event loop of its own; where a loop is running in this
    thread already, on another thread, for which this call waits.

    Args:
        body: The envelope.

        attempt: Which attempt this is, from 1.

        deliveries: How often this attempt was handed to a worker, this time included.

        heartbeat: Renews the transport's lease while the handler runs.

        settings: What the worker's configuration says.

        stopping: Whether the worker is shutting down; asked by `current_run().should_stop`.
    """
    try:
        task, envelope = opened(body, deliveries, settings)
    except Unfit as exc:
        return unfit(exc)
    run = Run(task, envelope, body, attempt, deliveries, stopping)
    if heartbeat is None and settings.idempotency is None:
        return _executed(run, settings) or succeeded(run)
    return _held(run, heartbeat, settings)


def run_here(body: bytes, *, attempt: int, settings: RunSettings) -> Outcome | None:
    """`run_envelope` for a caller to whom success says enough: None is success."""
    if settings.idempotency is not None:
        return run_envelope(body, attempt=attempt, settings=settings)
    try:
        task, envelope = opened(body, 1, settings)
    except Unfit as exc:
        return unfit(exc)
    return _executed(Run(task, envelope, body, attempt, 1, None), settings)


async def arun_envelope(
    body: bytes,
    *,
    attempt: int = 1,
    deliveries: int = 1,
    heartbeat: Heartbeat | None = None,
    settings: RunSettings = DEFAULTS,
    stopping: Callable[[], bool] | None = None,
) -> Outcome:
    """`run_envelope` for an event loop: async tasks run on it, others on a thread."""
    try:
        task, envelope = opened(body, deliveries, settings)
    except Unfit as exc:
        return unfit(exc)
    run = Run(task, envelope, body, attempt, deliveries, stopping)
    if not task.is_async:
        return await asyncio.to_thread(_held, run, heartbeat, settings)
    hold = _Hold(run, heartbeat, settings)
    if (refused := await asyncio.to_thread(hold.take) if hold.blocks else hold.take()) is not None:
        return refused
    with hold:
        hold.outcome = await _aexecuted(run, settings) or succeeded(run)
    return hold.result()


def _held(run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> Outcome:
    hold = _Hold(run, heartbeat, settings)
    if (refused := hold.take()) is not None:
        return refused
    with hold:
        hold.outcome = _executed(run, settings) or succeeded(run)
    return hold.result()


def _executed(run: Run, settings: RunSettings) -> Outcome | None:
    """Run the handler; None is success, for which most callers need no more words."""
    token = _begin(run)
    task = run.task
    try:
        work = task.function(**run.envelope["payload"])
        if task.is_async:
            run_coroutine(limited(work, run.time_left))
    except Exception as exc:  # noqa: BLE001 - whatever a handler raises is an outcome
        return _ended(run, token, after_failure(run, exc, settings))
    except BaseException:
        _current.reset(token)
        raise
    return _ended(run, token, None)


async def _aexecuted(run: Run, settings: RunSettings) -> Outcome | None:
    token = _begin(run)
    try:
        await limited(run.task.function(**run.envelope["payload"]), run.time_left)
    except Exception as exc:  # noqa: BLE001 - whatever a handler raises is an outcome
        return _ended(run, token, after_failure(run, exc, settings))
    except BaseException:
        _current.reset(token)
        raise
    return _ended(run, token, None)


def _begin(run: Run) -> Token[Run]:
    token = _current.set(run)
    if hooks.hooks.before_run:
        hooks.tell("before_run", run)
    return token


def _ended(run: Run, token: Token[Run], outcome: Outcome | None) -> Outcome | None:
    if hooks.hooks.after_run:
        outcome = outcome or succeeded(run)
        hooks.tell("after_run", run, outcome)
    _current.reset(token)
    return outcome


class _Hold:
    """The lease and the claim of a run, renewed while it lasts and given back after it."""

    def __init__(self, run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> None:
        self.outcome: Outcome | None = None
        self._run = run
        self._settings = settings
        self._store = settings.idempotency
        self._key = f"{run.task.name}:{_key(run.envelope)}"
        self._owner = new_id()
        self._beats = [] if heartbeat is None else [heartbeat]

    @property
    def blocks(self) -> bool:
        """Whether taking it may wait for a store."""
        return self._store is not None

    def take(self) -> Outcome | None:
        """Claim the key; an outcome says why the work may not run."""
        if self._store is None:
            return None
        ttl = self._settings.claim_ttl
        try:
            claim = self._store.claim(self._key, self._owner, ttl)
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            log.error("idempotency store: %s; work is handed back", type(exc).__name__)  # noqa: TRY400
            return self._refused(Action.RETURN, Reason.STORE_UNAVAILABLE, 5.0)
        if claim.state == "done":
            return self._refused(Action.DONE, Reason.DUPLICATE)
        if claim.state == "busy":
            return self._refused(Action.RETURN, Reason.IN_FLIGHT, max(claim.retry_after, 0.1))
        store, key, owner = self._store, self._key, self._owner
        self._beats.append(Heartbeat(lambda: store.renew(key, owner, ttl), ttl / 3))
        return None

    def _refused(self, action: Action, reason: Reason, after: float = 0.0) -> Outcome:
        run = self._run
        return Outcome(
            action=action,
            reason=reason,
            after=after,
            attempt=run.attempt,
            max_attempts=run.max_attempts,
            task=run.task.name,
            request_id=run.envelope["id"],
        )

    def __enter__(self) -> Self:
        self._run.lease = tuple(beater.start(beat) for beat in self._beats)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for beat in self._beats:
            beater.stop(beat)
        if self._run.lease_lost:
            self.outcome = self._refused(Action.RETURN, Reason.LEASE_LOST)
        if self._store is not None:
            self._settle(self._store)

    def result(self) -> Outcome:
        """The outcome of the run, unless its lease was lost."""
        assert self.outcome is not None, "the run has ended"
        return self.outcome

    def _settle(self, store: IdempotencyStore) -> None:
        done = self.outcome is not None and self.outcome.action is Action.DONE
        try:
            if done:
                store.complete(self._key, self._owner, self._settings.remember)
            else:
                store.release(self._key, self._owner)
        except Exception as exc:  # noqa: BLE001 - the run is over; the claim runs out by itself
            log.error("idempotency store: %s after a run", type(exc).__name__)  # noqa: TRY400


def _key(envelope: dict[str, Any]) -> str:
    return str(envelope.get("idempotency_key") or envelope["id"])
