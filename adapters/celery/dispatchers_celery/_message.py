"""From an envelope to a Celery message, and from a message's headers to what we know of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kombu.entity import Queue

from dispatchers import DispatchRequest

from ._app import Application
from ._link import Message

__all__ = ["HIDDEN", "Delivery", "Received", "is_ours", "message_again", "message_of"]

ATTEMPT, DELIVERIES, DUE = "dispatchers_attempt", "dispatchers_deliveries", "dispatchers_due"
NATIVE = "dispatchers_native"
"""The header of a request for one of Celery's own tasks; it does not travel."""
HIDDEN = "'...'"
"""What the native tools show in place of arguments: they are somebody's data."""
SPAN = 200
"""Our priorities go from -100 to 100."""
LEVELS = 9
"""Redis: kombu's priorities go from 0, the highest, to 9."""


class Delivery(NamedTuple):
    """What a message says beside its envelope."""

    attempt: int = 1
    """Which attempt its run is."""
    deliveries: int = 1
    """How often that attempt was handed to a worker, this time included."""
    due: float = 0.0
    """Seconds since the epoch before which it is not run, beside what the request says."""

    def held_back(self, seconds: float) -> Delivery:
        """The same, due so many seconds from now."""
        return self._replace(due=time.time() + seconds if seconds > 0 else 0.0)

    @property
    def wait(self) -> float:
        """Seconds until it is due."""
        return max(0.0, self.due - time.time())

    @property
    def headers(self) -> dict[str, Any]:
        """As they travel."""
        return {ATTEMPT: self.attempt, DELIVERIES: self.deliveries, DUE: self.due}

    @classmethod
    def read(cls, headers: Mapping[str, Any]) -> Delivery:
        """From a message's headers, of which anybody may have written some."""
        due = headers.get(DUE)
        return cls(
            _count(headers.get(ATTEMPT)),
            _count(headers.get(DELIVERIES)),
            float(due) if isinstance(due, int | float) else 0.0,
        )


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 1


def is_ours(headers: Mapping[str, Any] | None) -> bool:
    """Whether a message holds one of our envelopes."""
    return bool(headers) and ATTEMPT in (headers or {})


class Received(NamedTuple):
    """A message of ours as a worker got it."""

    body: bytes
    """The envelope."""
    task: str
    """The name it came under."""
    id: str
    """Celery's task id."""
    queue: str
    """Where it came from."""
    delivery: Delivery
    """Attempt and deliveries."""
    uncounted: bool
    """It was with a worker before that did not settle it, and nobody has counted that."""
    limit: float | None
    """Seconds after which Celery interrupts the run."""
    priority: int | None
    """On the broker's scale."""

    @classmethod
    def read(cls, body: str, headers: Mapping[str, Any], info: Mapping[str, Any]) -> Received:
        """From an envelope's text, the message's headers, and Celery's delivery info."""
        delivery = Delivery.read(headers)
        counted = headers.get("x-delivery-count")
        if isinstance(counted, int):  # quorum queues count themselves
            delivery = delivery._replace(deliveries=delivery.deliveries + counted)
        return cls(
            body.encode(),
            str(headers.get("task")),
            str(headers.get("id")),
            str(info.get("routing_key")),
            delivery,
            bool(info.get("redelivered")) and not isinstance(counted, int),
            (headers.get("timelimit") or [None, None])[1],
            info.get("priority"),
        )


def message_again(application: Application, received: Received, delivery: Delivery) -> Message:
    """The same work as a new message, whether this process can read the envelope or not.

    A worker holds it back no longer than is safe; if it is not due then, it is published again.
    """
    name = received.queue
    parts = application.app.amqp.as_task_v2(
        received.id,
        received.task,
        args=(received.body.decode(),),
        kwargs={},
        eta=_eta(application, delivery),
        soft_time_limit=received.limit,
        retries=delivery.attempt - 1,
        ignore_result=True,
        argsrepr=HIDDEN,
        kwargsrepr="{}",
    )
    queue = application.queue(name) or application.app.amqp.queues.new_missing(name)
    properties = {} if received.priority is None else {"priority": received.priority}
    return Message(received.task, received.id, parts, queue, delivery.headers, properties)


def message_of(
    application: Application,
    request: DispatchRequest,
    body: bytes,
    queue: Queue,
) -> Message:
    """The message; its one argument is the envelope as text.

    For one of Celery's own tasks, its own arguments.
    """
    is_native = NATIVE in request.headers
    args, kwargs = _native(request) if is_native else ([body.decode()], {})
    limit = request.time_limit
    delivery = Delivery(due=request.due.timestamp() if request.due else 0.0)
    parts = application.app.amqp.as_task_v2(
        request.id,
        request.task,
        args=args,
        kwargs=kwargs,
        eta=_eta(application, delivery),
        expires=request.expires_at,
        time_limit=None,
        soft_time_limit=None if limit is None else float(limit),
        ignore_result=True,
        argsrepr=HIDDEN,
        kwargsrepr="{}",
    )
    headers = {**request.headers, **delivery.headers}
    if is_native:
        headers = {k: v for k, v in request.headers.items() if k != NATIVE}
    priority = _priority(application, queue, request.priority)
    properties = {} if priority is None else {"priority": priority}
    return Message(request.task, request.id, parts, queue, headers, properties)


def _native(request: DispatchRequest) -> tuple[list[Any], dict[str, Any]]:
    payload: Any = request.payload
    return list(payload["args"]), dict(payload["kwargs"])


def _eta(application: Application, delivery: Delivery) -> datetime | None:
    """When a worker looks at it: when it is due, or when it cannot be held back any longer."""
    if not delivery.wait:
        return None
    longest = datetime.now(UTC) + application.max_hold
    return min(datetime.fromtimestamp(delivery.due, UTC), longest)


def _priority(application: Application, queue: Queue, priority: int | None) -> int | None:
    """Ours, -100 to 100, on the broker's scale; what says none is in the middle."""
    if application.transport == "redis":
        if not application.has_priorities:
            return None
        return round((100 - (priority or 0)) / SPAN * LEVELS)
    highest = application.highest_priority(queue)
    return round(((priority or 0) + 100) / SPAN * highest) if highest else None
