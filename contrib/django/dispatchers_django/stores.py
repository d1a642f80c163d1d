"""An idempotency store in the database.

`"idempotency": "dispatchers_django.stores:IdempotencyStore"` among a dispatcher's `OPTIONS`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from django.db import connections, router, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from dispatchers import Claim
from dispatchers.stores import Watch

from ._connections import restored

if TYPE_CHECKING:
    from . import models

__all__ = ["IdempotencyStore"]

PURGED = 100
"""Rows that one purge takes, so that no claim waits long for it."""
PURGE_EVERY = 50
"""Claims between two purges of one process."""


class IdempotencyStore:
    """Claims by key in a table, so that what is delivered twice runs once (C10).

    A claim that is not completed lasts while its owner renews it: another process takes it over
    when it has itself seen no renewal for the claim's `ttl` on its own monotonic clock. A completed
    one is remembered by the wall clock.

    A run inside a transaction of the same database, of an inline dispatch say, claims within it:
    the claim is committed with what the run wrote, and rolled back with it.

    Args:
        using: The database's alias; by default where the routers write claims.
    """

    def __init__(self, using: str | None = None) -> None:
        self._given = using
        self._watch = Watch()
        self._within: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._claims = 0

    def claim(self, key: str, owner: str, ttl: float) -> Claim:
        """Take the key for `ttl` seconds, unless it is done or another's."""
        name = digest(key)
        with self._connected() as using:
            self._purge_now_and_then(using)
            claim = self._claimed(using, name, key, owner, ttl)
            if claim.state == "claimed" and connections[using].in_atomic_block:
                self._within.add((name, owner))
        return claim

    def renew(self, key: str, owner: str, ttl: float) -> bool:
        """Hold the key for `ttl` seconds more; false if it is not the owner's any more."""
        if (digest(key), owner) in self._within:
            return True  # no other process can see, or take, uncommitted rows
        return self._change(key, owner, ttl=ttl)

    def complete(self, key: str, owner: str, ttl: float) -> bool:
        """Remember for `ttl` seconds that the work is done; false if it is not the owner's."""
        self._within.discard((digest(key), owner))
        return self._change(key, owner, done_until=timezone.now() + timedelta(seconds=ttl))

    def release(self, key: str, owner: str) -> bool:
        """Release the key, so that the work can run again; false if another has it."""
        name = digest(key)
        self._within.discard((name, owner))
        with self._connected() as using:
            deleted, _ = _rows(using).filter(key=name, owner=owner, done_until=None).delete()
        return deleted == 1

    def _claimed(self, using: str, name: str, key: str, owner: str, ttl: float) -> Claim:
        model = _model()
        task = key.partition(" ")[0][:255]
        fresh = model(key=name, task=task, owner=owner, ttl=ttl)
        # One statement decides who is first; an error would end the transaction on PostgreSQL.
        _rows(using).bulk_create([fresh], ignore_conflicts=True)
        row = _rows(using).filter(key=name).first()
        if row is None:  # completed by another, and purged, in between
            return Claim("busy", 1.0)
        if row.done_until is not None and row.done_until > timezone.now():
            return Claim("done")
        if row.owner == owner and row.done_until is None:
            return Claim("claimed")
        left = 0.0 if row.done_until else self._watch.left(name, (row.owner, row.beat), row.ttl)
        if left > 0:
            return Claim("busy", left)
        same = _rows(using).filter(key=name, owner=row.owner, beat=row.beat)
        values = {"owner": owner, "ttl": ttl, "done_until": None, "changed_at": timezone.now()}
        # Only if it is still as it was seen: of two that find it abandoned, one gets it.
        taken = same.update(beat=F("beat") + 1, **values)
        return Claim("claimed") if taken == 1 else Claim("busy", 1.0)

    def _change(self, key: str, owner: str, **values: Any) -> bool:
        with self._connected() as using:
            mine = _rows(using).filter(key=digest(key), owner=owner, done_until=None)
            values["changed_at"] = timezone.now()
            return mine.update(beat=F("beat") + 1, **values) == 1

    def _purge_now_and_then(self, using: str) -> None:
        with self._lock:
            self._claims += 1
            due = self._claims % PURGE_EVERY == 1
        if due:
            old = _rows(using).filter(done_until__lte=timezone.now()).order_by("done_until")
            # Read first: not every database has DELETE with a limit.
            keys = list(old.values_list("key", flat=True)[:PURGED])
            _rows(using).filter(key__in=keys, done_until__lte=timezone.now()).delete()

    @contextmanager
    def _connected(self) -> Generator[str]:
        """The database's alias, with a connection that is left as it was found.

        Claims are renewed by a thread of its own, and claimed by others for async tasks: Django
        closes nothing there.
        """
        using = self._given or router.db_for_write(_model())
        with restored(using), _savepoint(using):
            yield using


def _savepoint(using: str) -> AbstractContextManager[object]:
    """Inside a transaction, which is its owner's: an error here must not end it."""
    inside = connections[using].in_atomic_block
    return transaction.atomic(using=using) if inside else nullcontext()


def digest(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _model() -> type[models.Claim]:
    from .models import Claim as Row  # importable once the applications are loaded

    return Row


def _rows(using: str) -> QuerySet[models.Claim]:
    return _model()._default_manager.using(using)
