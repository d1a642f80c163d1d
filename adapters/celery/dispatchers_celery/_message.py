"""From a request to a Celery message, and from a message to the work it carries."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from celery.app.amqp import task_message
from celery.app.task import Context
from kombu.entity import Queue

from dispatchers import DispatchRequest, ErrorCategory, RejectedError
from dispatchers.delivery import DeliveryCount, scaled_priority
from dispatchers.native import arguments

from ._broker import Broker

__all__ = [
    "HOLD",
    "Draft",
    "Message",
    "Received",
    "again",
    "draft_of",
    "is_ours",
    "message_of",
    "way_of",
]

OURS = "dispatchers_attempt"
"""The header that every message with an envelope has, since 0.1.0."""
PLAIN = "dispatchers_plain"
"""Counts of a converted task's former messages: workers of 0.1.0 take `OURS` for an envelope."""
QUEUE = "dispatchers_queue"
"""The queue a message came to first: behind a broker's delay the routing key tells another."""
HOLD = "dispatchers_hold"
"""Seconds since the epoch until which the broker itself holds a message back."""
HIDDEN = "'...'"
"""Shown by the native tools in place of arguments, which are a user's data."""
LEVELS = 9
"""Redis: kombu's priorities go from 0, the highest, to 9."""
RESERVED = frozenset(dir(Context)) | {
    *("lang", "task", "argsrepr", "kwargsrepr", "compression", "eta", "expires", "stamps"),
    *("hostname", "redelivered", "CC", "BCC"),
}
"""Names in a message's headers that mean something to Celery's workers, Celery 5.7, or to
RabbitMQ, which sends a message to the further queues that `CC` and `BCC` list."""


BROKERS = ("x-death", "x-delivery-count", "x-first-", "x-last-", "x-acquired-", "dispatchers_")
"""Beginnings of names that RabbitMQ and we write."""
MAX_NAME = 60
"""Characters of a header's name: AMQP has 255 bytes, and a character up to 4."""
MAX_HEADERS = 32_768
"""Characters: all headers, twice, must fit one frame of AMQP, 128 KiB by default."""


class Draft(NamedTuple):
    """A message but for what depends on the time it is sent: a batch may not be sent to its end."""

    task: str
    """The task's registered name."""
    id: str
    """The message's id, Celery's task id."""
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    words: dict[str, Any]
    """Further arguments of `app.amqp.as_task_v2`: limits, callbacks and so on."""
    headers: dict[str, Any]
    """Headers beside those that Celery writes."""
    queue: Queue
    """The queue it goes to."""
    options: dict[str, Any]
    """Further options of Celery's sender: priority, exchange, routing key."""
    due: float = 0.0
    """Seconds since the epoch before which it is not run; 0 is at once."""
    is_native: bool = False
    """It is for one of Celery's own tasks."""
    context: contextvars.Context | None = None
    """A copy of the caller's: another's dispatch may send it."""

    def run(self, function: Callable[..., object], *args: object) -> None:
        """Call what sends Celery's signals, which find the caller's variables, as its span."""
        if self.context is None:
            function(*args)
        else:
            self.context.run(function, *args)


class Message(NamedTuple):
    """A message as Celery's own sender takes it."""

    draft: Draft
    parts: task_message
    """Headers, properties and body, as `app.amqp.as_task_v2` makes them."""
    hold: float
    """Seconds since the epoch until which the broker holds it back; 0 for not at all."""


def message_of(broker: Broker, draft: Draft, hold: float) -> Message:
    """Make a message now, which the broker holds back until `hold`; 0 is not at all."""
    parts = broker.amqp.as_task_v2(
        draft.id,
        draft.task,
        args=draft.args,
        kwargs=draft.kwargs,
        eta=None if hold and not draft.is_native else _eta(broker, draft.due),
        argsrepr=HIDDEN,
        kwargsrepr="{}",
        **draft.words,
    )
    parts.headers.update(draft.headers)
    if hold and not draft.is_native:
        parts.headers[HOLD] = hold
    else:
        parts.headers.pop(HOLD, None)
    return Message(draft, parts, hold)


def way_of(draft: Draft) -> tuple[str, str]:
    """Return exchange and routing key, as Celery's sender chooses them; no exchange is a queue."""
    exchange, key = draft.options.get("exchange"), draft.options.get("routing_key")
    own: Any = draft.queue.exchange
    if own.type == "direct" and not (exchange and key):
        return "", draft.queue.name
    return str(getattr(exchange, "name", exchange) or own.name), str(key or draft.queue.routing_key)


def _eta(broker: Broker, due: float) -> datetime | None:
    """Return when a worker looks at it: when due, or when it cannot be held any longer."""
    if due <= time.time():
        return None
    # Held longer than the redelivery window, the message would be given to another worker.
    longest = datetime.now(UTC) + broker.max_hold
    return min(datetime.fromtimestamp(due, UTC), longest)


def is_ours(headers: Mapping[str, Any] | None) -> bool:
    """Tell whether a message holds one of our envelopes."""
    return bool(headers) and OURS in (headers or {})


class Received(NamedTuple):
    """A message as a worker got it."""

    context: Any
    """Celery's view of the message: its headers and how it was delivered."""
    task: str
    """The name it came under."""
    args: tuple[Any, ...]
    """Its arguments: an envelope's text, or those of a converted task's former life."""
    kwargs: Mapping[str, Any]
    """Its keyword arguments."""
    counts: DeliveryCount
    """Attempt, deliveries and due time."""

    @classmethod
    def read(cls, context: Any, task: str, args: Any, kwargs: Any) -> Self:
        """Read a message's counts from its headers, of which others may have written some."""
        # Celery sets a message's headers as attributes of its context.
        headers = vars(context)
        if is_ours(headers):
            counts = DeliveryCount.read(headers)
        else:
            kept = headers.get(PLAIN)
            counts = DeliveryCount.read(kept if isinstance(kept, Mapping) else {})
        counted = headers.get("x-delivery-count")
        if isinstance(counted, int):  # quorum queues count themselves
            counts = counts._replace(deliveries=counts.deliveries + counted)
        return cls(context, task, tuple(args or ()), dict(kwargs or {}), counts)

    @property
    def is_ours(self) -> bool:
        """Tell whether it holds one of our envelopes."""
        return is_ours(vars(self.context))

    @property
    def is_uncounted(self) -> bool:
        """Tell whether a worker had it before and did not settle it, which nothing counted."""
        info = self.context.delivery_info or {}
        counted = isinstance(vars(self.context).get("x-delivery-count"), int)
        return bool(info.get("redelivered")) and not counted

    @property
    def queue(self) -> str:
        """The name of the queue it came to first."""
        info = self.context.delivery_info or {}
        return str(vars(self.context).get(QUEUE) or info.get("routing_key"))

    @property
    def carried(self) -> dict[str, Any]:
        """The headers of the caller, of tracers and of signals, which survive every hop."""
        return free(vars(self.context))


def again(broker: Broker, received: Received, counts: DeliveryCount) -> Draft:
    """Make the same work a new message, whether this process can read the envelope or not."""
    context = received.context
    words = context.as_execution_options()
    # Celery copies the old ones, the broker's own among them: they are chosen anew below.
    del words["headers"]
    words |= {
        "callbacks": words.pop("link"),
        "errbacks": words.pop("link_error"),
        "ignore_result": bool(context.ignore_result),
        "retries": counts.attempt - 1,
    }
    queue = _queue_again(broker, received)
    own = counts.headers if received.is_ours else {PLAIN: counts.headers}
    headers = {**received.carried, **own, QUEUE: queue.name, HOLD: 0.0}
    if nested := free(context.headers or {}):
        headers["headers"] = nested
    # Passed on as it was: it is on the broker's scale already.
    priority = (context.delivery_info or {}).get("priority")
    return Draft(
        received.task,
        words.pop("task_id"),
        received.args,
        received.kwargs,
        words,
        headers,
        queue,
        {} if priority is None else {"priority": priority},
        counts.due,
    )


def _queue_again(broker: Broker, received: Received) -> Queue:
    name = received.queue
    if (found := broker.queue(name)) is not None:
        return found
    exchange = (received.context.delivery_info or {}).get("exchange")
    for each in broker.queues.values():
        # By exchange and key: a routing key need not be the name of a queue.
        if exchange and (each.exchange.name, each.routing_key) == (exchange, name):
            return each
    return broker.queues.new_missing(name)


def draft_of(
    broker: Broker, request: DispatchRequest, body: bytes, queue: Queue, options: dict[str, Any]
) -> Draft:
    """Make the message of a request; its one argument is the envelope as text.

    For one of Celery's own tasks, it is the message that `delay` writes.

    Args:
        broker: The broker it goes to.

        request: The request.

        body: Its envelope.

        queue: The queue it goes to.

        options: The further words of the application's routing: priority, exchange and so on.

    Raises:
        RejectedError: A header of a native call has a name that is taken, or they are too long.
    """
    is_native, limit = request.is_native, request.time_limit
    due = due_at.timestamp() if (due_at := request.due) else 0.0
    given, counts = dict(request.headers), DeliveryCount(due=due).headers
    words = {
        # Celery would drop ours without a word; the core knows its expiry, and who awaits it.
        "expires": request.expires_at if is_native else None,
        "soft_time_limit": None if limit is None else float(limit),
        "ignore_result": True,
    }
    if is_native:
        args, kwargs = arguments(request)
        words["ignore_result"] = _ignores_result(broker, request.task)
        headers = _native_headers(request.task, given)
    else:
        args, kwargs = [body.decode()], {}
        headers = _headers(given, counts, queue.name)
    priority = _priority(broker, queue, request.priority)
    if priority is not None and (request.priority is not None or "priority" not in options):
        options = {**options, "priority": priority}
    return Draft(
        request.task,
        request.id,
        args,
        kwargs,
        words,
        headers,
        queue,
        options,
        due,
        is_native,
        contextvars.copy_context(),
    )


def _headers(given: dict[str, str], counts: dict[str, Any], queue: str) -> dict[str, Any]:
    """Return the headers beside Celery's own, which a caller's names cannot replace.

    The envelope has all of them; tracers read those of the message. Sentry looks for its own in
    the header `headers`, where Celery's `apply_async(headers=...)` puts them too (sentry-sdk 2).
    """
    own = {**counts, QUEUE: queue, HOLD: 0.0}
    copied = free(given) if given else {}
    return {**copied, "headers": copied, **own} if copied else own


def _native_headers(task: str, given: dict[str, str]) -> dict[str, str]:
    if taken := sorted(given.keys() - free(given).keys()):
        raise RejectedError(
            ErrorCategory.INVALID,
            f"task {task!r}: header {taken[0]!r} is Celery's or RabbitMQ's own, or the headers "
            f"are longer than {MAX_HEADERS} characters: choose another name, or shorten them",
        )
    return given


def free(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that are neither Celery's, a broker's nor ours.

    RabbitMQ takes a message with its own `x-death` for one that goes in circles, and drops it.
    """
    found = {
        name: value
        for name, value in headers.items()
        if name not in RESERVED and not name.startswith(BROKERS) and len(name) <= MAX_NAME
    }
    return found if sum(len(str(each)) for each in found.items()) <= MAX_HEADERS else {}


def _ignores_result(broker: Broker, name: str) -> bool:
    task = broker.registered(name)
    return bool(getattr(task, "ignore_result", broker.app.conf.task_ignore_result))


def _priority(broker: Broker, queue: Queue, priority: int | None) -> int | None:
    """Map ours, -100 to 100, to the broker's scale; none given is in the middle."""
    if broker.uses_redis:
        if not broker.has_priorities:
            return None
        # Turned round: kombu on Redis serves 0 first.
        return scaled_priority(-(priority or 0), LEVELS)
    highest = broker.highest_priority(queue)
    return scaled_priority(priority, highest) if highest else None
