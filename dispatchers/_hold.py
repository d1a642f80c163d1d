"""What a run holds while it lasts: the transport's lease, and the claim on its key."""

from __future__ import annotations

import logging
from typing import Any

from ._beats import Heartbeat, beater
from ._current import Run, RunSettings
from ._idempotency import Claim, IdempotencyStore
from ._log import say
from ._outcome import Action, Outcome, Reason
from ._request import new_id

__all__ = ["Hold"]


class Hold:
    """The lease and the claim of a run, renewed while it lasts and given back after it."""

    def __init__(self, run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> None:
        self.outcome: Outcome | None = None
        self._run = run
        self._settings = settings
        self._store = settings.idempotency
        self._key = f"{run.task.name} {_key(run.envelope)}"  # a name has no blank
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
            claim = Claim(*self._store.claim(self._key, self._owner, ttl))
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            say(logging.ERROR, "idempotency store: %s; work is handed back", type(exc).__name__)
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

    def begin(self) -> None:
        """Renew lease and claim from now on."""
        self._run.lease = tuple(beater.start(beat) for beat in self._beats)

    def end(self) -> None:
        """Renew no more; complete the claim, or give it back. May wait for a store."""
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
        done = self.outcome is not None and self.outcome.ok
        try:
            if done:
                store.complete(self._key, self._owner, self._settings.remember)
            else:
                store.release(self._key, self._owner)
        except Exception as exc:  # noqa: BLE001 - the run is over; the claim runs out by itself
            say(logging.ERROR, "idempotency store: %s after a run", type(exc).__name__)


def _key(envelope: dict[str, Any]) -> str:
    return str(envelope.get("idempotency_key") or envelope["id"])
