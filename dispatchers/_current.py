"""The run that is under way, as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._beats import Heartbeat
from ._envelope import decode
from ._idempotency import IdempotencyStore
from ._options import OnHandlerError
from ._request import DispatchRequest

if TYPE_CHECKING:
    from ._task import AnyTask

__all__ = ["DEFAULTS", "Run", "RunSettings", "current", "current_run"]


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
    quiet: bool = False
    """Write no record of a failure: the caller answers for it, and writes its own (C4)."""


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
