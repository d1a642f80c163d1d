"""Figures of queues, and their dead-letter queues, as the service tells them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dispatchers import DeadLetterStore, Stats, queue_stats
from dispatchers.stores import count_dead

from ._broker import Broker
from ._options import SQSOptions

COUNTS = {
    "waiting": "ApproximateNumberOfMessages",
    "running": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}


def queues_of(options: SQSOptions) -> list[str]:
    """Return the configured queues, each once."""
    return list(dict.fromkeys((options.queue, *options.queues)))


def figures(broker: Broker, options: SQSOptions, letters: DeadLetterStore | None) -> list[Stats]:
    """Return the figures of each queue, as the service estimates them; it tells no ages."""
    found = {queue: _attributes(broker, queue, *COUNTS.values()) for queue in queues_of(options)}
    counts = {
        kind: {queue: int(each[name]) for queue, each in found.items()}
        for kind, name in COUNTS.items()
    }
    return queue_stats(**counts, dead=count_dead(letters))


def warnings(broker: Broker, options: SQSOptions) -> Iterator[str]:
    """Yield what an operator should know of each queue."""
    for queue in queues_of(options):
        most = int(_redrive(broker, queue).get("maxReceiveCount", options.max_deliveries))
        if most < options.max_deliveries:
            yield (
                f"queue {queue!r} moves a message to its dead-letter queue after {most} "
                f"deliveries (maxReceiveCount), before max_deliveries = {options.max_deliveries} "
                "is reached: raise the first, or lower the second"
            )


def dead_letter_url(broker: Broker, queue: str) -> str | None:
    """Return the URL of the queue that a queue's redrive policy names, or None."""
    arn = str(_redrive(broker, queue).get("deadLetterTargetArn", ""))
    return broker.url_of(arn) if arn else None


def _redrive(broker: Broker, queue: str) -> dict[str, Any]:
    policy: dict[str, Any] = json.loads(
        _attributes(broker, queue, "RedrivePolicy").get("RedrivePolicy", "{}")
    )
    return policy


def _attributes(broker: Broker, queue: str, *names: str) -> dict[str, str]:
    answer = broker.call("get_queue_attributes", queue, AttributeNames=list(names))
    found: dict[str, str] = answer.get("Attributes", {})
    return found
