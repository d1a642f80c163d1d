"""Signed requests run once: an id that was settled is a duplicate from then on."""

from __future__ import annotations

import logging
import time

from dispatchers._beats import Heartbeat
from dispatchers._idempotency import Claim, IdempotencyStore
from dispatchers._log import say
from dispatchers._outcome import Action, Outcome, Reason
from dispatchers._request import new_id

from ._verdict import Verdict

__all__ = ["Hold", "Replays"]

TTL = 60.0
"""Seconds until the claim of a process that died is free."""
DUPLICATE = Outcome(action=Action.DONE, reason=Reason.DUPLICATE)
DOWN = Outcome(action=Action.RETURN, reason=Reason.STORE_UNAVAILABLE, after=5.0)


class Replays:
    """Ids that were settled, for as long as their signatures are good.

    A delivery that was not settled comes again with the same id and signature; one that was is a
    replay, or its answer was lost: acknowledging it again does no harm.
    """

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store

    def take(self, verdict: Verdict) -> Hold | Outcome:
        """Claim the id of a request, or the outcome that it has without a run."""
        key, owner = f"dispatchers.http {verdict.replay_id}", new_id()
        try:
            claim = Claim(*self._store.claim(key, owner, TTL))
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            say(logging.ERROR, "replay store: %s; work is handed back", type(exc).__name__)
            return DOWN
        if claim.state == "done":
            return DUPLICATE
        if claim.state == "busy":
            after = max(claim.retry_after, 1.0)
            return Outcome(action=Action.RETURN, reason=Reason.IN_FLIGHT, after=after)
        return Hold(self._store, key, owner, verdict.good_until)


class Hold:
    """The claim of one request."""

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
                left = max(self._good_until - time.time(), 0.0) + 1.0
                self._store.complete(self._key, self._owner, left)
            else:
                self._store.release(self._key, self._owner)
        except Exception as exc:  # noqa: BLE001 - the run is over; the claim runs out by itself
            say(logging.ERROR, "replay store: %s after a run", type(exc).__name__)
