"""From an envelope to a Dramatiq message, and from a received message to its run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from dramatiq import Message, Middleware, get_encoder
from dramatiq.common import dq_name, q_name
from dramatiq.encoder import PickleEncoder

from dispatchers import DispatchRequest, ErrorCategory, RejectedError, catalogue
from dispatchers.delivery import DeliveryCount, new_id, scaled_priority
from dispatchers.native import arguments, former_envelope, is_native

from ._broker import ConfiguredBroker

BODY = "dispatchers"
"""The option that holds the envelope: arguments would show in Dramatiq's log."""
COUNTS = ("dispatchers_attempt", "dispatchers_deliveries", "dispatchers_due")
WRITTEN_ANEW = frozenset({BODY, *COUNTS, "eta", "redis_message_id", "max_retries"})
"""Options that a message is given on each hop; all others travel on."""
HIDDEN = "..."
"""Stands for the envelope in the messages that middleware sees."""
EXTRA_TIME = 0.05
"""Seconds between the end of a run's time and its interruption."""


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
    message: Any = None
    """Dramatiq's message, for middleware that wants to know of it."""


class Sealed(str):
    """An envelope's text that no `repr` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


class Received(NamedTuple):
    """A message for one of our tasks as a worker got it: ours, or of a former actor."""

    body: str | None
    """The envelope; None in a message of the task's former life, which has arguments."""
    task: str
    """The name it came under."""
    id: str
    """The message's id."""
    queue: str
    """The queue it came from, or will go to when it is due."""
    counts: DeliveryCount
    """Attempt, deliveries (this one included) and due time."""
    options: dict[str, Any]
    """Dramatiq's own options and those of its middleware."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    written: int = 0
    """Milliseconds since the epoch at which it was first dispatched."""

    @classmethod
    def read(cls, message: Any, deliveries: int = 0) -> Self:
        """Read a message; none of its parts is trusted.

        Args:
            message: Dramatiq's.

            deliveries: Those that the broker knows of beside the counted ones.
        """
        options = message.options
        counts = DeliveryCount.read(options)
        counts = counts._replace(deliveries=counts.deliveries + deliveries)
        body = options.get(BODY)
        if BODY not in options and isinstance(options.get("eta"), int | float):
            counts = counts._replace(due=options["eta"] / 1000)
        return cls(
            (body if isinstance(body, str) else "") if BODY in options else None,
            message.actor_name,
            message.message_id,
            q_name(message.queue_name),
            counts,
            {name: value for name, value in options.items() if name not in WRITTEN_ANEW},
            message.args,
            message.kwargs,
            message.message_timestamp,
        )

    def envelope(self) -> bytes:
        """Return the envelope; the one of a former message is made of its arguments."""
        if self.body is not None:
            return self.body.encode()
        task = catalogue.get(self.task)
        return former_envelope(task, self.args, self.kwargs, id=self.id)

    def packet(self, broker: Any, counts: DeliveryCount) -> Packet:
        """Return the same work as a new message; this process need not understand it."""
        options = dict(self.options)
        if self.body is not None:
            options |= {BODY: Sealed(self.body), "max_retries": 0}
        for name, value, default in zip(COUNTS, counts, DeliveryCount(), strict=True):
            if value != default:
                options[name] = value
        message = Message(
            self.queue,
            self.task,
            self.args,
            dict(self.kwargs),
            options,
            self.id,
            self.written or int(time.time() * 1000),
        )
        return _packed(broker, message, counts.due)


def is_ours(message: Any) -> bool:
    """Tell whether a message holds one of our envelopes."""
    return BODY in message.options


def is_sound(message: Any, queue: str) -> bool:
    """Return true if Dramatiq's threads can process this untrusted message."""
    return (
        message.queue_name == queue
        and isinstance(message.actor_name, str)
        and isinstance(message.message_id, str)
        and isinstance(message.kwargs, dict)
        and isinstance(message.options, dict)
        and isinstance(message.message_timestamp, int)
    )


def packet_of(broker: ConfiguredBroker, request: DispatchRequest, body: bytes) -> Packet:
    """Return the message of a request; for one of Dramatiq's own actors, its own arguments.

    Raises:
        RejectedError: The broker has no such queue, or Dramatiq's encoder pickles.
    """
    queue = _queue(broker, request)
    options = _options(broker, request)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    if is_native(request):
        args, kwargs = arguments(request)
        if request.expires_at is not None:
            age = request.expires_at - request.created_at
            options["max_age"] = max(1, int(age.total_seconds() * 1000))
    else:
        # Dramatiq's own retry would acknowledge the message before the next one is confirmed.
        options |= {BODY: Sealed(body.decode()), "max_retries": 0}
    due = request.due.timestamp() if request.due else 0.0
    if due and not is_native(request):
        options[COUNTS[2]] = due
    created = int(request.created_at.timestamp() * 1000)
    # Its own timestamp, so that Dramatiq's `max_age` counts from the dispatch.
    message = Message(queue, request.task, tuple(args), kwargs, options, request.id, created)
    return _packed(broker.dramatiq, message, due)


def _queue(broker: ConfiguredBroker, request: DispatchRequest) -> str:
    own = broker.queue_of_actor(request.task) if is_native(request) else None
    name = request.queue or own or broker.default_queue
    if not broker.knows(name):
        raise RejectedError(
            ErrorCategory.NOT_FOUND,
            f"no queue {name!r} at the broker or in `queues`: "
            f"there are {', '.join(sorted(broker.known))}",
        )
    return name


def interrupted_after(limit: float) -> float:
    """Return the milliseconds after which Dramatiq, whose clock begins earlier, interrupts a run.

    The run knows by then that its time is over, and that a handler which returns swallowed it.
    """
    return (limit + EXTRA_TIME) * 1000


def _options(broker: ConfiguredBroker, request: DispatchRequest) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if request.time_limit is not None:
        options["time_limit"] = interrupted_after(request.time_limit)
    if broker.max_priority:
        options["broker_priority"] = scaled_priority(request.priority, broker.max_priority)
    return options


PICKLES = "Dramatiq's encoder is set to pickle, which runs what it reads: set a JSONEncoder"


def is_pickling() -> bool:
    """Tell whether the application has Dramatiq pickle its messages."""
    return isinstance(get_encoder(), PickleEncoder)


def _packed(broker: Any, message: Any, due: float) -> Packet:
    """Encode a message, after the middleware had its turn, as Dramatiq does on `enqueue`."""
    # Asked on each dispatch, as an application may set its encoder at any time.
    if is_pickling():
        raise RejectedError(ErrorCategory.CONFIGURATION, PICKLES)
    options = message.options
    # Of its own each time: the same key would replace the copy that is still unsettled.
    options["redis_message_id"] = stored_as = new_id()
    queue = message.queue_name
    if due > time.time():
        queue = dq_name(queue)
        options["eta"] = int(due * 1000)
        message = message.copy(queue_name=queue)
        options = message.options
    listened_to = any(_listens(each) for each in broker.middleware)
    if listened_to:
        broker.emit_before("enqueue", message, _delay(message))
    # After the middleware: what it puts into the options travels too.
    data = bytes(get_encoder().encode(message.asdict()))
    if BODY in options:
        options[BODY] = HIDDEN  # what middleware keeps of a message has no payload
    priority = options.get("broker_priority")
    return Packet(queue, message.message_id, stored_as, data, priority, listened_to and message)


def told(broker: Any, packet: Packet) -> None:
    """Tell the middleware of a message that the broker has: django_dramatiq's admin, say."""
    if packet.message:
        broker.emit_after("enqueue", packet.message, _delay(packet.message))


def _delay(message: Any) -> int | None:
    """Return milliseconds, as Dramatiq gives them to its middleware; None is at once."""
    eta = message.options.get("eta")
    return None if eta is None else max(0, int(eta - time.time() * 1000))


def _listens(middleware: Any) -> bool:
    kind = type(middleware)
    return bool(
        kind.before_enqueue is not Middleware.before_enqueue
        or kind.after_enqueue is not Middleware.after_enqueue
    )
