"""The lease and the claim that a run has while it lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from dispatchers._models.claim import Claim, IdempotencyStore
from dispatchers._models.fields import new_id
from dispatchers._models.keyed import conflict, digest_of_payload
from dispatchers._models.outcome import Action, Outcome, Reason, RunFailure
from dispatchers._runtime.heartbeat import Heartbeat, beater
from dispatchers._runtime.log import say
from dispatchers._worker.run import Run, RunSettings

__all__ = ["Hold", "claimed"]

MARGIN = 60.0
"""Seconds by which a key of arguments outlives the key that says that they are known."""

DOWN = "idempotency store: %s; work is handed back"
UNAVAILABLE_DELAY = 5.0
"""Seconds after which work comes again that could not be claimed."""


def claimed(
    store: IdempotencyStore,
    key: str,
    owner: str,
    ttl: float,
    *,
    tell: Callable[[str], object],
    at_least: float = 0.1,
) -> Outcome | None:
    """Claim a key; an outcome says why the work may not run now.

    `tell` logs the type of a store's exception; work under another's claim comes again after
    `at_least` seconds.
    """
    try:
        # Any store of the application's may answer with a plain tuple.
        claim = Claim(*store.claim(key, owner, ttl))
    except Exception as exc:  # noqa: BLE001 - anything a store raises
        tell(type(exc).__name__)
        # Running without the claim could run the work twice; the broker keeps it until later.
        action, reason, after = Action.RETURN, Reason.STORE_UNAVAILABLE, UNAVAILABLE_DELAY
        return Outcome(action=action, reason=reason, after=after)
    if claim.state == "done":
        return Outcome(action=Action.DONE, reason=Reason.DUPLICATE)
    if claim.state == "busy":
        after = max(claim.retry_after, at_least)
        return Outcome(action=Action.RETURN, reason=Reason.IN_FLIGHT, after=after)
    return None


def not_run(run: Run, action: Action, reason: Reason, after: float = 0.0) -> Outcome:
    """Return the outcome of a run that may not begin, or whose result does not count."""
    return Outcome(
        action=action,
        reason=reason,
        after=after,
        attempt=run.attempt,
        max_attempts=run.max_attempts,
        task=run.task.name,
        request_id=run.envelope["id"],
    )


class Hold:
    """The lease and the claim of a run, renewed while it lasts and given back after it."""

    def __init__(self, run: Run, heartbeat: Heartbeat | None, settings: RunSettings) -> None:
        self.outcome: Outcome | None = None
        self._run = run
        self._settings = settings
        self._store = settings.idempotency
        self._key = f"{run.task.name} {_key(run.envelope)}"  # a name has no blank
        # New for each run: a second delivery of the same request must not pass for the first.
        self._owner = new_id()
        self._beats = [] if heartbeat is None else [heartbeat]

    @property
    def blocks(self) -> bool:
        """Tell whether taking it may wait for a store."""
        return self._store is not None

    def take(self) -> Outcome | None:
        """Claim the key; an outcome says why the work may not run."""
        if self._store is None:
            return None
        store, key, owner, ttl = self._store, self._key, self._owner, self._settings.claim_ttl
        refused = claimed(store, key, owner, ttl, tell=partial(say, logging.ERROR, DOWN))
        if refused is not None:
            if refused.reason is Reason.DUPLICATE:
                return self._known()
            return not_run(self._run, refused.action, refused.reason, refused.after)
        # A third of the time to live: two renewals may fail before the claim runs out.
        self._beats.append(Heartbeat(lambda: store.renew(key, owner, ttl), ttl / 3))
        return None

    def _known(self) -> Outcome:
        """Tell a repetition from other work under its key, whose arguments differ."""
        if self._is_same():
            return not_run(self._run, Action.DONE, Reason.DUPLICATE)
        refused = not_run(self._run, Action.DEAD, Reason.CONFLICT)
        failure = RunFailure(message=conflict(self._run.task.name).message)
        return refused.model_copy(update={"error": failure})

    def _is_same(self) -> bool:
        """Tell whether the arguments were completed under the key; unknown is the same."""
        store, keys = self._store, self._keys_of_arguments
        if store is None or keys is None:
            return True
        own, any_known = keys
        try:
            return self._is_done(store, own) or not self._is_done(store, any_known)
        except Exception as exc:  # noqa: BLE001 - anything a store raises
            say(logging.ERROR, "idempotency store: %s; taken for a repetition", type(exc).__name__)
            return True

    def _is_done(self, store: IdempotencyStore, key: str) -> bool:
        """Look at a key; a store can be asked only by claiming."""
        state = Claim(*store.claim(key, self._owner, self._settings.claim_ttl)).state
        if state == "claimed":
            store.release(key, self._owner)
        return state == "done"

    @cached_property
    def _keys_of_arguments(self) -> tuple[str, str] | None:
        """Two more keys, completed with the first: one for these arguments, one for any.

        0.1.0 completed the first alone: without the one for any, nothing is known of the arguments.
        """
        if not self._run.envelope.get("idempotency_key"):
            return None
        own = digest_of_payload(dict(self._run.request.payload)).hex()
        any_known = digest_of_payload([self._key]).hex()
        return f"{self._key} {own}", f"{self._key} {any_known}"

    def begin(self) -> None:
        """Renew lease and claim from now on."""
        self._run.lease = tuple(beater.start(beat) for beat in self._beats)

    def end(self) -> None:
        """Renew no more; complete the claim, or give it back. May wait for a store."""
        # Before the claim is settled: a renewal after that is refused, and looks like a loss.
        for beat in self._beats:
            beater.stop(beat)
        # Another worker may be running it: this result must not be reported as the work's.
        if self._run.lease_lost:
            self.outcome = not_run(self._run, Action.RETURN, Reason.LEASE_LOST)
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
                self._remember_arguments(store)
                store.complete(self._key, self._owner, self._settings.remember)
            else:
                store.release(self._key, self._owner)
        except Exception as exc:  # noqa: BLE001 - the run is over; the claim runs out by itself
            say(logging.ERROR, "idempotency store: %s after a run", type(exc).__name__)

    def _remember_arguments(self, store: IdempotencyStore) -> None:
        """Complete the keys of the arguments first: a death in between repeats the run, no more.

        The one for any comes second, and ends first: it never stands without the arguments' own.
        """
        if self._keys_of_arguments is None:
            return
        remember = self._settings.remember
        for key, kept in zip(self._keys_of_arguments, (remember + MARGIN, remember), strict=True):
            store.claim(key, self._owner, self._settings.claim_ttl)
            if not store.complete(key, self._owner, kept) and not self._is_done(store, key):
                return


def _key(envelope: dict[str, Any]) -> str:
    return str(envelope.get("idempotency_key") or envelope["id"])
