"""Database connections around runs: none that is stale is used, none outlives its age.

Django does this around requests; a worker has none. A run inside the dispatch that asked for it
(`inline`) shares its connections with its caller, who may be reading from them: it closes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import connections

from dispatchers import DispatchRequest, DispatchResponse, Outcome, Run, hooks

__all__ = ["after_rollback", "close_stale", "install", "restored", "shared"]

MOST = 10_000
"""Ids that are remembered of dispatches that never came to an answer, as Ctrl-C ended them."""


after_rollback: ContextVar[list[Callable[[], None]] | None] = ContextVar(
    "dispatchers_django_after_rollback", default=None
)
"""Where a run has a transaction that is rolled back if it fails: what is written after that."""


class _Thread(threading.local):
    """The requests that this thread is dispatching at the moment, by their ids."""

    def __init__(self) -> None:
        self.dispatching: set[str] = set()
        self.shared = False


_thread = _Thread()


def install() -> None:
    """Look after connections from now on."""
    # Removed first, because `ready` may be called more than once in tests.
    for hook in (_begin, _end, _before, _after):
        hooks.remove(hook)
    hooks.before_dispatch(_begin)
    hooks.after_dispatch(_end)
    hooks.before_run(_before)
    hooks.after_run(_after)


class shared:  # noqa: N801 - reads as what it says; a class costs less than a generator
    """Leave the connections of this thread alone, as others look after them, or read from them."""

    def __enter__(self) -> None:
        self._before, _thread.shared = _thread.shared, True

    def __exit__(self, *_: object) -> None:
        _thread.shared = self._before


@contextmanager
def restored(using: str) -> Generator[None]:
    """Leave this thread's connection as it is found: closed, if the block opened it.

    For threads that Django does not look after, such as the one that renews claims.
    """
    connection = connections[using]
    found = connection.connection
    try:
        yield
    finally:
        mine = connection.connection is not None and connection.connection is not found
        if mine and not connection.in_atomic_block:
            connection.close()


def _begin(request: DispatchRequest) -> None:
    if len(_thread.dispatching) >= MOST:
        _thread.dispatching.clear()
    _thread.dispatching.add(request.id)


def _end(response: DispatchResponse) -> None:
    _thread.dispatching.discard(response.request_id)


def _before(run: Run) -> None:
    _close_stale(run)


def _after(run: Run, outcome: Outcome) -> None:
    del outcome
    _close_stale(run)


def _close_stale(run: Run) -> None:
    """Close broken and old connections, unless a transaction is open or the caller uses them."""
    if run.envelope["id"] not in _thread.dispatching:
        close_stale()


def close_stale() -> None:
    """Close what of this thread's is broken or old, unless others look after its connections."""
    if _thread.shared:
        return
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
