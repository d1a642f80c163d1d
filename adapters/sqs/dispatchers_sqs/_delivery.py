"""A message in the hands of a worker, of ours or of Lambda, and what can become of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from botocore.exceptions import ClientError

from dispatchers.delivery import DeliveryCount

from ._broker import Broker
from ._errors import code_of
from ._message import counts_of, later
from ._queues import dead_letter_url

LONGEST_HIDDEN = 43000
"""Seconds that a message is hidden in one go: 12 hours since it was received are the limit."""
GONE = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})
"""Codes with which the service says that a message is held by this receipt no more."""


SURE = 0.9
"""The part of a visibility timeout in which a message is certainly hidden: ours began later."""


class LeaseOverError(Exception):
    """The message may be another worker's by now, and the service would not say so."""


@dataclass
class Receipt:
    """A message that was received."""

    queue: str
    """The URL of its queue."""
    id: str
    handle: str
    body: str
    counts: DeliveryCount
    group: str | None
    until: float = math.inf
    """When it may be delivered again, of the monotonic clock; Lambda looks to that itself."""

    @classmethod
    def of(cls, queue: str, message: Mapping[str, Any], until: float = math.inf) -> Receipt:
        """Read a message as the service gives it, or as Lambda does: with small first letters."""
        given = {name[0].lower() + name[1:]: value for name, value in message.items()}
        system = given["attributes"]
        received = int(system["ApproximateReceiveCount"])
        counts = counts_of(given.get("messageAttributes", {}), received)
        message_id, handle, body = given["messageId"], given["receiptHandle"], given["body"]
        return cls(queue, message_id, handle, body, counts, system.get("MessageGroupId"), until)


class Receipts:
    """Settles messages, each step confirmed by the service before the next.

    Args:
        broker: The service.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._dead: dict[str, str | None] = {}

    def delete(self, receipt: Receipt) -> None:
        """Forget a message.

        Raises:
            LeaseOverError: It may be another worker's.
        """
        _refuse_late(receipt)
        self._broker.call("delete_message", receipt.queue, ReceiptHandle=receipt.handle)

    def send_later(self, receipt: Receipt, after: float, attempt: int, deliveries: int) -> None:
        """Send the message that stands for this one from now on, with its counts."""
        self._send(receipt, receipt.queue, DeliveryCount(attempt, deliveries), after)

    def hide(self, receipt: Receipt, seconds: float) -> bool:
        """Hide a message for so long; false where it is held by this receipt no more."""
        now = monotonic()
        if now >= receipt.until:
            return False
        try:
            self._broker.call(
                "change_message_visibility",
                receipt.queue,
                ReceiptHandle=receipt.handle,
                VisibilityTimeout=min(LONGEST_HIDDEN, math.ceil(seconds)),
            )
        except ClientError as exc:
            if code_of(exc) in GONE:
                return False
            raise
        receipt.until = now + SURE * seconds
        return True

    def send_dead(self, receipt: Receipt) -> None:
        """Send a message to the dead-letter queue of its queue, if that has one."""
        if receipt.queue not in self._dead:
            self._dead[receipt.queue] = dead_letter_url(self._broker, receipt.queue)
        if (url := self._dead[receipt.queue]) is not None:
            self._send(receipt, url, DeliveryCount(), 0.0)

    def _send(self, receipt: Receipt, queue: str, counts: DeliveryCount, after: float) -> None:
        _refuse_late(receipt)
        group, source = receipt.group, receipt.id
        self._broker.send_one(
            later(receipt.body, queue=queue, counts=counts, after=after, group=group, source=source)
        )


def _refuse_late(receipt: Receipt) -> None:
    # Its deletion would succeed, and with it that of a message which another worker has.
    if monotonic() >= receipt.until:
        raise LeaseOverError("the visibility timeout is over: the message may be another worker's")
