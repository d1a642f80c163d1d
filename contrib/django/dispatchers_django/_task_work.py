"""Work of `django.tasks` in this process: its result in memory and, where kept, its row."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from os import getpid
from socket import gethostname
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import Error
from django.utils import timezone

from dispatchers import Discard, DispatchRequest, Heartbeat, Reason, current_run
from dispatchers.delivery import HandBack, renewed

from . import _task_memory, _task_results
from ._task_results import READY, Held

if TYPE_CHECKING:
    from ._task_api import TaskResult
    from ._task_backend import DispatcherBackend

__all__ = ["Work", "enqueuing", "held", "row_of", "stored", "worker_id"]

DOWN_DELAY = 5.0
"""Seconds after which work comes again whose result could not be written."""


class Work:
    """Work of `django.tasks` as this process knows it."""

    __slots__ = ("backend", "held", "result")

    def __init__(
        self, backend: DispatcherBackend, result: TaskResult[..., Any], held: Held | None = None
    ) -> None:
        self.backend = backend
        self.result = result
        self.held = held
        """Its row, where results are kept."""

    def begin(self) -> None:
        """Note that a run begins.

        Raises:
            HandBack: The database does not answer; that is no attempt of the work.

            Discard: It has succeeded already.
        """
        if not self.backend.chosen.results:
            _task_memory.begin(self.result, worker_id(), current_run().attempt)
            return
        if self.held is not None and not self.held.begun:
            self.held.begun = True  # the row was written as held for this run
        else:
            self.held = held(self.backend, current_run().request)
        self.read()

    def read(self) -> None:
        """Show in the result what the row says."""
        if self.held is not None:
            _task_memory.change(self.result, **self.backend.state_of(self.held.row))

    def renewed(self) -> AbstractContextManager[None]:
        """Renew the lease while the block runs."""
        if self.held is None:
            return nullcontext()
        lease = self.backend.chosen.lease
        renew = partial(_task_results.renew, self.result.id, self.held.owner, lease)
        # A third of the lease: two renewals may fail before it ends.
        return renewed(Heartbeat(renew, lease / 3))

    def end(self, status: str, value: Any = None, error: dict[str, str] | None = None) -> bool:
        """Note how the work ended; false where that does not count, as another run has it."""
        if not self.backend.chosen.results:
            _task_memory.end(self.result, status, value=value, error=error)
            return True
        if self.held is not None:
            counts = self.held.end(status, value=value, error=error)
        else:
            row = _task_results.end(self.result.id, status, owner="", value=value, error=error)
            counts, self.held = row is not None, None if row is None else Held(row, "")
        if self.held is None:
            self.result.refresh()
        self.read()
        return counts


enqueuing: ContextVar[Work | None] = ContextVar("dispatchers_django_enqueuing", default=None)
"""The work that is enqueued in this context, and runs in the call."""


def held(backend: DispatcherBackend, request: DispatchRequest, lease: float | None = None) -> Held:
    """Take the row of a result.

    Raises:
        HandBack: The database does not answer; that is no attempt of the work.

        Discard: It has succeeded already.
    """
    try:
        row = _task_results.made(request.id, partial(row_of, request))
        taken = _task_results.begin(row, worker_id(), lease or backend.chosen.lease)
    except Error as exc:
        words = f"the result could not be written: {type(exc).__name__}"
        raise HandBack(Reason.STORE_UNAVAILABLE, words, after=DOWN_DELAY) from exc
    if taken is None:
        raise Discard("it has succeeded already")
    return taken


def worker_id() -> str:
    """Return the name of this process in results."""
    return f"{gethostname()[:200]}:{getpid()}"


def row_of(request: DispatchRequest) -> dict[str, Any]:
    """Return the row of work that no run has begun."""
    given = {**request.payload}
    return {
        "id": request.id,
        "backend": given["backend"],
        "task": given["path"],
        "queue": given["queue"],
        "priority": given["priority"],
        "run_after": stored(request.eta),
        "args": json.dumps(given["args"]),
        "kwargs": json.dumps(given["kwargs"]),
        "status": READY,
        "enqueued_at": stored(request.created_at),
    }


def stored(instant: datetime | None) -> datetime | None:
    """Return an instant as Django has it: naive where `USE_TZ` is off."""
    if instant is None or settings.USE_TZ:
        return instant
    return timezone.make_naive(instant)
