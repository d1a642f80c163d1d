"""Requests as entries of a batch of messages."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from dispatchers import DispatchRequest, ErrorCategory, RejectedError
from dispatchers.delivery import DeliveryCount

from ._options import SQSOptions, is_fifo

MAX_SIZE = 1024 * 1024
"""Bytes of a message, attributes and all, and of a batch: the page of quotas, November 2026."""
MAX_ENVELOPE = MAX_SIZE - 256
"""Bytes of an envelope: the rest is for the counts that travel with later attempts."""
MAX_DELAY = 900
"""Seconds that the service holds a new message back."""
MAX_ENTRIES = 10
"""Messages of one batch."""
GROUP_HEADER = "sqs-group"
"""The header of a request that names its message group."""


class Message(NamedTuple):
    """One message, not sent yet."""

    queue: str
    """The name or URL of its queue."""
    entry: dict[str, Any]
    """The parameters of its entry, without an id."""
    size: int
    """Bytes that the service counts."""


def message(request: DispatchRequest, body: bytes, queue: str, options: SQSOptions) -> Message:
    """Return the message for a request.

    Raises:
        RejectedError: It is too large, or its queue is of another kind than the dispatcher's.
    """
    if is_fifo(queue) is not options.is_fifo:
        raise RejectedError(
            ErrorCategory.UNSUPPORTED,
            f"queue {queue!r} is of another kind than {options.queue!r}, standard and FIFO: "
            "dispatch to it through a dispatcher of its own",
        )
    entry: dict[str, Any] = {"MessageBody": _text(body)}
    group = request.headers.get(GROUP_HEADER) or options.group
    if options.is_fifo:
        entry["MessageDeduplicationId"] = known = request.key_digest
        group = group or known
    elif request.due is not None:
        entry["DelaySeconds"] = _delay(request.due.timestamp() - time.time())
    if group:
        entry["MessageGroupId"] = group
    return _measured(queue, entry)


def later(
    body: str, *, queue: str, counts: DeliveryCount, after: float, group: str | None, source: str
) -> Message:
    """Return the message that has work come again.

    Args:
        body: The text of the message that it stands for.

        queue: The URL of its queue.

        counts: The counts that its next delivery has.

        after: Seconds until it is due.

        group: The message group that the work is in.

        source: The id of that message: sent twice, a FIFO queue keeps it once.
    """
    entry: dict[str, Any] = {"MessageBody": body}
    if group is not None:
        entry["MessageGroupId"] = group
    if is_fifo(queue):
        entry["MessageDeduplicationId"] = f"{source}-{counts.attempt}-{counts.deliveries}"
    else:
        entry["DelaySeconds"] = _delay(after)
    # What the service cannot hold back so long is taken early, and hidden until it is due.
    if is_fifo(queue) or after > MAX_DELAY:
        counts = counts.held_back(after)
    entry["MessageAttributes"] = {
        name: {"DataType": "Number", "StringValue": f"{value}"}
        for name, value in counts.headers.items()
    }
    return _measured(queue, entry)


def counts_of(attributes: Mapping[str, Mapping[str, Any]], received: int) -> DeliveryCount:
    """Return the counts of a delivery.

    Args:
        attributes: The message's attributes, as boto3 or Lambda name their values.

        received: How often the service has delivered the message.
    """
    values = {
        name: each.get("StringValue", each.get("stringValue")) for name, each in attributes.items()
    }
    counts = DeliveryCount.read(values)
    # A message that has to be hidden until it is due was delivered once to find that out.
    early = 1 if counts.due else 0
    return counts._replace(deliveries=max(1, counts.deliveries + received - 1 - early))


def _text(body: bytes) -> str:
    # Two characters that JSON allows and the service does not; within JSON they are in strings.
    return body.decode().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _delay(seconds: float) -> int:
    # Rounded up: work never runs early.
    return min(MAX_DELAY, max(0, math.ceil(seconds)))


def _measured(queue: str, entry: dict[str, Any]) -> Message:
    attributes = entry.get("MessageAttributes", {})
    texts = [entry["MessageBody"]]
    texts += (text for name, each in attributes.items() for text in (name, *each.values()))
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_SIZE:
        raise RejectedError(
            ErrorCategory.TOO_LARGE,
            f"message of {size} bytes, the service takes {MAX_SIZE}: pass a reference to the data "
            "instead of the data",
        )
    return Message(queue, entry, size)
