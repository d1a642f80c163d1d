"""The run that is under way, as its handler sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from dispatchers._models.claim import IdempotencyStore
from dispatchers._models.envelope import decode
from dispatchers._models.options import OnHandlerError
from dispatchers._models.request import DispatchRequest
from dispatchers._runtime.heartbeat import Heartbeat

if TYPE_CHECKING:
    from dispatchers._tasks.task import AnyTask

__all__ = [
    "DEFAULTS",
    "Run",
    "RunSettings",
    "current",
    "current_run",
    "interrupted",
    "turn_is_interrupted",
    "turns",
]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The settings of runs, from a worker's configuration."""

    on_handler_error: OnHandlerError | None = None
    """Where the task says nothing itself; None is `raise`."""
    idempotency: IdempotencyStore | None = None
    """Where runs are remembered; None runs every delivery."""
    claim_ttl: float = 60.0
    """Seconds until a claim that is not renewed is free again."""
    remember: float = 86400.0
    """Seconds that a finished key is remembered."""
    max_deliveries: int = 5
    """Work that was delivered more often without an outcome is dead."""
    skew_grace: float = 900.0
    """Seconds that what this worker does not understand is handed back."""
    quiet: bool = False
    """The caller waits for the run: it writes its own record of a failure (C4), and what is no
    `Exception` passes through to it (C1)."""
    interrupts: bool = False
    """The worker raises in a run at its time limit: one that returns later has swallowed that,
    and failed."""
    tracebacks: bool = False
    """Keep each frame of a failure, its file, line and function, in the log and dead letter."""


DEFAULTS = RunSettings()


class Run:
    """One execution attempt of a task by a worker, as its handler sees it."""

    __slots__ = (
        "_request",
        "_stopping",
        "attempt",
        "body",
        "deliveries",
        "envelope",
        "interrupts",
        "lease",
        "result",
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
        *,
        interrupts: bool = False,
    ) -> None:
        self.task = task
        """The task that runs."""
        self.attempt = attempt
        """1 for the first."""
        self.deliveries = deliveries
        """How often this attempt was handed to a worker, this time included."""
        self.envelope = envelope
        self.lease: tuple[Heartbeat, ...] = ()
        self.result: Any = None
        self.started = monotonic()
        # The envelope first: it has what this dispatch asked for.
        limit = envelope.get("time_limit") or task.time_limit
        self.until: float | None = None if limit is None else self.started + limit
        self.interrupts = interrupts
        self.body = body
        self._stopping = stopping
        self._request: DispatchRequest | None = None

    @property
    def request(self) -> DispatchRequest:
        """Return the request that was dispatched."""
        if self._request is None:
            # When it is asked for: a handler need not look at it.
            self._request = decode(self.body)
        return self._request

    @property
    def time_left(self) -> float | None:
        """Seconds until the time limit, negative beyond it; None without one."""
        return None if self.until is None else self.until - monotonic()

    @property
    def is_late(self) -> bool:
        """Tell whether the time limit has passed."""
        return self.until is not None and monotonic() >= self.until

    @property
    def is_interrupted(self) -> bool:
        """Tell whether the worker has raised in this run, which may have swallowed that."""
        return self.interrupts and self.is_late

    def expire(self) -> None:
        """Put the time limit at now: the clock of a transport that interrupts may be ahead."""
        now = monotonic()
        # Never later than it was: an overrun that has passed stays one.
        self.until = now if self.until is None else min(self.until, now)

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
        return self.stopping or self.lease_lost or self.is_late

    @property
    def max_attempts(self) -> int:
        """Return the number of attempts that there may be."""
        return self.envelope.get("max_attempts") or self.task.max_attempts or 1

    def __repr__(self) -> str:
        return f"Run(task={self.task.name!r}, attempt={self.attempt})"


current: ContextVar[Run] = ContextVar("dispatchers_run")


def current_run() -> Run:
    """The run that this code is part of: its request, attempt, deliveries, time and stop signs.

    Raises:
        LookupError: No task is running here; a plain call of a task's function is no run.
    """
    try:
        return current.get()
    except LookupError:
        raise LookupError(
            "no run: current_run() works while a worker or an in-process backend runs a task"
        ) from None


class Turns(threading.local):
    """The run of each thread that is a turn: the code of its workflow has a context of its own."""

    run: Run | None = None


turns = Turns()


def turn_is_interrupted() -> bool:
    """Tell whether the worker has raised in the turn under way in this thread."""
    return turns.run is not None and turns.run.is_interrupted


def interrupted() -> None:
    """Put the time limit of the run under way at now, before the worker raises in it.

    Code that swallows what is raised has failed all the same. Safe in signal handlers.
    """
    for run in (current.get(None), turns.run):
        if run is not None:
            run.expire()
