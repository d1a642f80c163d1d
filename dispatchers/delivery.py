"""Running and settling deliveries, for authors of adapters.

A worker has a message. `process` runs its envelope and settles the message as the outcome asks:
what follows from the run is confirmed first, and where that fails the message goes back (C9)::

    class QueueDelivery(Delivery):
        def complete(self, outcome): self.client.ack(self.tag)
        def retry(self, outcome):
            self.client.publish(self.body, self.counts.next_attempt(outcome).headers)
            self.client.ack(self.tag)
        def give_back(self, after):
            self.client.publish(self.body, self.counts.held_back(after).headers)
            self.client.ack(self.tag)
        def dead_letter(self, outcome, letter): self.client.reject(self.tag)
        def abandon(self): self.client.nack(self.tag)

    process(QueueDelivery(...), run_settings(options), letters=dispatcher.letters)
"""

from __future__ import annotations

from dispatchers._models.delivery_count import DeliveryCount
from dispatchers._models.fields import new_id, scaled_priority
from dispatchers._runtime.heartbeat import renewed
from dispatchers._runtime.log import say, say_once
from dispatchers._worker.eager import Eager, called
from dispatchers._worker.forked import flush_output
from dispatchers._worker.modules import import_modules
from dispatchers._worker.outcomes import HandBack, failed, sent
from dispatchers._worker.run import interrupted
from dispatchers._worker.settlement import (
    HOLD_SHARE,
    Delivery,
    aprocess,
    process,
    settle,
)
from dispatchers._worker.signals import (
    StopFlag,
    act_by_default,
    acted_in_fork,
    ignore_signals,
    own_handler,
    stopped_by_signals,
)

__all__ = [
    "HOLD_SHARE",
    "Delivery",
    "DeliveryCount",
    "Eager",
    "HandBack",
    "StopFlag",
    "act_by_default",
    "acted_in_fork",
    "aprocess",
    "called",
    "failed",
    "flush_output",
    "ignore_signals",
    "import_modules",
    "interrupted",
    "new_id",
    "own_handler",
    "process",
    "renewed",
    "say",
    "say_once",
    "scaled_priority",
    "sent",
    "settle",
    "stopped_by_signals",
]
