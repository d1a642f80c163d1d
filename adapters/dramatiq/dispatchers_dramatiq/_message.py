"""From an envelope to a Dramatiq message, and from a message to what we know of it."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple, Self

from dramatiq import get_encoder
from dramatiq.common import dq_name, q_name
from dramatiq.encoder import PickleEncoder

from dispatchers import DispatchRequest, ErrorCategory, RejectedError

from ._place import Place

__all__ = ["BODY", "NATIVE", "Packet", "Received", "is_ours", "packet_of"]

BODY = "dispatchers"
"""The option that holds the envelope: arguments would show in Dramatiq's log."""
ATTEMPT, DELIVERIES, DUE = "dispatchers_attempt", "dispatchers_deliveries", "dispatchers_due"
NATIVE = "dispatchers_native"
"""The header of a request for one of Dramatiq's own actors; it does not travel."""
SPAN = 200
"""Our priorities go from -100 to 100."""


class Packet(NamedTuple):
    """A message as a broker stores it."""

    queue: str
    """The queue it goes to; for delayed work the one that ends in `.DQ`."""
    id: str
    """The message's id."""
    stored_as: str
    """Redis: the key under which it is stored, of its own for each time it is published."""
    data: bytes
    """What Dramatiq's encoder made of it."""
    priority: int | None
    """On the broker's scale."""


class Sealed(str):
    """An envelope's text that nobody's `repr` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'...'"


class Received(NamedTuple):
    """A message of ours as a worker got it."""

    body: str
    """The envelope."""
    task: str
    """The name it came under."""
    id: str
    """The message's id."""
    queue: str
    """Where it came from, or will go to when it is due."""
    attempt: int
    """Which attempt its run is."""
    deliveries: int
    """How often that attempt was handed to a worker, this time included."""
    due: float
    """Seconds since the epoch before which it is not run; 0 is at once."""
    options: dict[str, Any]
    """Dramatiq's own: time limit and priority."""

    @classmethod
    def read(cls, message: Any, deliveries: int = 0) -> Self:
        """From a message of ours, of which anybody may have written some.

        Args:
            message: Dramatiq's.

            deliveries: Those that the broker knows of beside the counted ones.
        """
        options = message.options
        body = options[BODY]
        kept = {
            name: options[name] for name in ("time_limit", "broker_priority") if name in options
        }
        due = options.get(DUE)
        return cls(
            body if isinstance(body, str) else "",
            message.actor_name,
            message.message_id,
            q_name(message.queue_name),
            _count(options.get(ATTEMPT)),
            _count(options.get(DELIVERIES)) + deliveries,
            float(due) if isinstance(due, int | float) else 0.0,
            kept,
        )

    def packet(self, **changes: Any) -> Packet:
        """The same work as a new message, whether this process can read the envelope or not."""
        new = self._replace(**changes)
        options = {BODY: str(self.body), **self.options}
        if new.attempt > 1:
            options[ATTEMPT] = new.attempt
        if new.deliveries > 1:
            options[DELIVERIES] = new.deliveries
        return _packet(self.queue, self.task, self.id, options, due=new.due)


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 1


def is_ours(message: Any) -> bool:
    """Whether a message holds one of our envelopes."""
    return BODY in message.options


def packet_of(place: Place, request: DispatchRequest, body: bytes, queue: str) -> Packet:
    """The message of a request; for one of Dramatiq's own actors, its own arguments."""
    options = _options(place, request)
    due = request.due.timestamp() if request.due else 0.0
    if NATIVE not in request.headers:
        options[BODY] = body.decode()
        return _packet(queue, request.task, request.id, options, due=due)
    payload: Any = request.payload
    if request.expires_at is not None:
        age = request.expires_at - request.created_at
        options["max_age"] = max(1, int(age.total_seconds() * 1000))
    args, kwargs = list(payload["args"]), dict(payload["kwargs"])
    return _packet(queue, request.task, request.id, options, args, kwargs, due=due, native=True)


def _options(place: Place, request: DispatchRequest) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if request.time_limit is not None:
        options["time_limit"] = request.time_limit * 1000
    if place.max_priority:
        part = ((request.priority or 0) + 100) / SPAN
        options["broker_priority"] = round(part * place.max_priority)
    return options


def _packet(
    queue: str,
    actor: str,
    id: str,  # noqa: A002
    options: dict[str, Any],
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    *,
    due: float,
    native: bool = False,
) -> Packet:
    now = time.time()
    stored_as = os.urandom(16).hex()
    options["redis_message_id"] = stored_as
    if not native:
        options["max_retries"] = 0  # its own retry would lose what it cannot publish
    if due > now:
        queue = dq_name(queue)
        options["eta"] = int(due * 1000)
        if not native:
            options[DUE] = due
    fields = {
        "queue_name": queue,
        "actor_name": actor,
        "args": args or [],
        "kwargs": kwargs or {},
        "options": options,
        "message_id": id,
        "message_timestamp": int(now * 1000),
    }
    return Packet(queue, id, stored_as, _encoded(fields), options.get("broker_priority"))


def _encoded(fields: dict[str, Any]) -> bytes:
    encoder = get_encoder()
    if isinstance(encoder, PickleEncoder):
        raise RejectedError(
            ErrorCategory.CONFIGURATION,
            "Dramatiq's encoder is set to pickle, which runs what it reads: set a JSONEncoder",
        )
    return bytes(encoder.encode(fields))
