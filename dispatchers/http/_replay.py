"""Signed requests run once: an id that was settled is a duplicate from then on."""

from __future__ import annotations

import logging
import time
from functools import partial

from dispatchers._models.claim import IdempotencyStore
from dispatchers._models.fields import new_id
from dispatchers._models.outcome import Outcome
from dispatchers._runtime.heartbeat import Heartbeat
from dispatchers._runtime.log import say, say_once
from dispatchers._worker.claim import claimed
from dispatchers.http._auth import AuthResult

__all__ = ["ReplayClaim", "Replays"]

TTL = 60.0
"""Seconds until the claim of a process that died is free."""
DOWN = "replay store: %s; work is handed back"


class Replays:
    """Ids that were settled, for as long as their signatures are good.

    A delivery that was not settled comes again with the same id and signature; one that was is a
    replay, or its answer was lost: acknowledging it again does no harm.
    """

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store

    def take(self, result: AuthResult) -> ReplayClaim | Outcome:
        """Claim the id of a request, or return the outcome that it has without a run."""
        key, owner = f"dispatchers.http {result.replay_id}", new_id()
        tell = partial(say_once, self._store, logging.ERROR, DOWN)
        refused = claimed(self._store, key, owner, TTL, tell=tell, at_least=1.0)
        return refused or ReplayClaim(self._store, key, owner, result.good_until)


class ReplayClaim:
    """The claim of one request's id."""

    def __init__(self, store: IdempotencyStore, key: str, owner: str, good_until: float) -> None:
        self._store = store
        self._key = key
        self._owner = owner
        self._good_until = good_until
        self.heartbeat = Heartbeat(lambda: store.renew(key, owner, TTL), TTL / 3)

    def end(self, *, settled: bool) -> None:
        """Remember the id if it is settled, else let it come again."""
        try:
            if settled:
                # A second longer than the signature is good for, to leave no gap.
                left = max(self._good_until - time.time(), 0.0) + 1.0
                self._store.complete(self._key, self._owner, left)
            else:
                self._store.release(self._key, self._owner)
        except Exception as exc:  # noqa: BLE001 - the run is over; the claim runs out by itself
            say(logging.ERROR, "replay store: %s after a run", type(exc).__name__)
