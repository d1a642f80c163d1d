"""One push as a delivery: settling it is the choice of an answer."""

from __future__ import annotations

import hashlib
import logging

from dispatchers._models.dead_letter import DeadLetter
from dispatchers._models.outcome import Action, Outcome, Reason
from dispatchers._runtime.heartbeat import Heartbeat
from dispatchers._runtime.log import say
from dispatchers._worker.settlement import Delivery
from dispatchers.http._replay import ReplayClaim
from dispatchers.http._request import Request, count_of
from dispatchers.http._responses import Policy, answer_to, refusal, retry_after

__all__ = ["Push"]

STORE_DOWN = refusal(503, "unavailable", retry_after(10))
PENDING = Outcome(action=Action.RETURN, reason=Reason.STOPPING)


class Push(Delivery):
    """A request in the hands of the endpoint.

    Args:
        request: A request that was admitted.

        policy: The statuses of its transport.

        claim: The claim of its replay id, ended when it is settled.

        keeps_letters: Whether a store keeps its dead letter.
    """

    def __init__(
        self, request: Request, policy: Policy, claim: ReplayClaim | None, *, keeps_letters: bool
    ) -> None:
        counted = count_of(request.headers.get(policy.counter, ""), policy.first)
        self.body = request.body
        # Cut, since a header can be of any length and this goes into stores.
        self.queue = request.headers.get("x-cloudtasks-queuename", "")[:255]
        # A push queue has one count, of attempts and deliveries alike.
        self.attempt = self.deliveries = max(counted - policy.first + 1, 1)
        self.outcome = PENDING
        self.answer = STORE_DOWN
        self._policy = policy
        self._claim = claim
        self._keeps_letters = keeps_letters

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The renewal of the claim while the handler runs."""
        return self._claim.heartbeat if self._claim else None

    @property
    def waits(self) -> bool:
        """True where settling it asks a store."""
        return self._claim is not None or self.outcome.action is Action.DEAD

    def letter(self, outcome: Outcome) -> DeadLetter:
        """Return the dead letter of a run that ended so."""
        # Other bytes than an envelope have no id; their hash is the same each time they come.
        self.id = f"body-{hashlib.sha256(self.body).hexdigest()[:32]}"
        return super().letter(outcome)

    def complete(self, outcome: Outcome) -> None:
        """Acknowledge it."""
        self._end(outcome, settled=True)

    def retry(self, outcome: Outcome) -> None:
        """Answer that the queue may deliver it again."""
        self._end(outcome, settled=False)

    def give_back(self, after: float) -> None:
        """Answer that this worker cannot run it now."""
        del after  # the outcome has it, with the reason that decides the status
        self._end(self.outcome, settled=False)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        """Acknowledge it with a marker."""
        if not self._keeps_letters:
            say(logging.ERROR, "endpoint: no dead_letters: %s is lost", letter.task or "a message")
        self._end(outcome, settled=True)

    def abandon(self) -> None:
        """Do not acknowledge what the dead-letter store does not have (C11)."""
        if self._claim is not None:
            self._claim.end(settled=False)
        self.answer = STORE_DOWN

    def _end(self, outcome: Outcome, *, settled: bool) -> None:
        if self._claim is not None:
            self._claim.end(settled=settled)
        self.answer = answer_to(outcome, self._policy)
