"""One connection with one channel: logging in, declaring queues, asking about them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from time import monotonic
from typing import Any

from pika import frame, spec

from ._errors import ReplyError
from ._frames import Frames
from ._message import Exchange, Queue
from ._server import Server

__all__ = ["CHANNEL", "Channel"]

CHANNEL = 1
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED = 403, 404, 406
PROPERTIES = {
    "product": "dispatchers",
    "capabilities": {
        "authentication_failure_close": True,  # a reason, in place of a closed socket
        "basic.nack": True,
        "connection.blocked": True,
        "publisher_confirms": True,
    },
}
UNEQUAL = re.compile(
    r"inequivalent arg '(?P<name>[^']+)'.* current is "
    r"(?:none|(?:the value )?'(?P<value>[^']*)'(?: of type '(?P<type>\w+)')?)"
)
"""How RabbitMQ says what differs: `rabbit_misc:assert_field_equivalence`, 3.8 to 4.1."""
PROBES = {
    "x-expires": 2**31 - 7,
    "x-message-ttl": 2**31 - 7,
    "x-max-length": 2**31 - 7,
    "x-max-length-bytes": 2**31 - 7,
    "x-overflow": "reject-publish",
}
"""Arguments that make a queue drop messages, with values that are hardly the real ones."""
FLAGS = ("durable", "auto_delete")
"""What a refusal may name beside arguments, and keeps or loses what a queue holds."""
MAX_ARGUMENTS = 20
"""A queue's optional arguments; RabbitMQ 4.1 knows 17."""


class Channel:
    """A connection to a server, with the one channel that is used.

    Args:
        server: The server.

        until: When connecting has to be done, on the monotonic clock.

        confirm: Have every message confirmed.

    Raises:
        OSError: No connection.
        ReplyError: RabbitMQ refuses it.
    """

    def __init__(self, server: Server, until: float, *, confirm: bool) -> None:
        self.sent = 0
        self.durable: dict[str, bool] = {}
        """By name of a declared queue."""
        self._confirm = confirm
        self._declared: set[Queue | Exchange | str] = set()
        self.frames = Frames(server, until)
        try:
            self._log_in(server, until)
        except BaseException:
            self.abandon()
            raise

    def _log_in(self, server: Server, until: float) -> None:
        frames = self.frames
        start = frames.await_method(spec.Connection.Start, until)
        offered = start.mechanisms
        names = (offered.decode() if isinstance(offered, bytes) else offered).split()
        # Checked here, since only this side can say which of them was configured.
        if server.mechanism not in names:
            text = f"it takes no {server.mechanism} credentials, only {', '.join(names)}"
            raise ReplyError(ACCESS_REFUSED, text)
        response: Any = server.sasl_response  # bytes, whatever pika's annotation says
        ok = spec.Connection.StartOk(PROPERTIES, server.mechanism, response)
        tune = frames.call(0, ok, spec.Connection.Tune, until)
        # 0 leaves the limit open; pika's own is the upper bound.
        frames.max_size = min(tune.frame_max or spec.FRAME_MAX_SIZE, spec.FRAME_MAX_SIZE)
        # No thread would send heartbeats between two publishes: the broker would hang up.
        tuned = spec.Connection.TuneOk(tune.channel_max, frames.max_size, 0)  # no heartbeats
        frames.write(frame.Method(0, tuned).marshal(), until)
        opening = spec.Connection.Open(server.virtual_host)
        frames.call(0, opening, spec.Connection.OpenOk, until)
        self._open(until)

    def _open(self, until: float) -> None:
        self.sent = 0
        self._call(spec.Channel.Open(), spec.Channel.OpenOk, until)
        if self._confirm:
            self._call(spec.Confirm.Select(), spec.Confirm.SelectOk, until)

    def _call(self, method: Any, answer: type, until: float) -> Any:
        return self.frames.call(CHANNEL, method, answer, until)

    def _reopen(self, until: float) -> None:
        closed = frame.Method(CHANNEL, spec.Channel.CloseOk()).marshal()
        self.frames.write(closed, until)
        self._open(until)

    def declare(self, queue: Queue, until: float) -> None:
        """Declare a queue once per connection: its worker may not have begun yet."""
        # Once per connection: a declaration costs a round trip.
        if queue.name in self._declared:
            return
        if queue.exchange is not None and queue.exchange.name not in self._declared:
            self._declare_exchange(queue.exchange, until)
        self.durable[queue.name] = queue.is_durable
        self._tolerated(_declaration(queue), spec.Queue.DeclareOk, queue.name, until)
        if queue.exchange is not None:
            bind = spec.Queue.Bind(0, queue.name, queue.exchange.name, queue.routing_key)
            self._tolerated(bind, spec.Queue.BindOk, queue.name, until)
        # Last: a declaration that failed half-way is made again.
        self._declared.add(queue.name)

    def _declare_exchange(self, exchange: Exchange, until: float) -> None:
        method = spec.Exchange.Declare(
            exchange=exchange.name,
            type=exchange.type,
            durable=exchange.durable,
            auto_delete=exchange.auto_delete,
            arguments=dict(exchange.arguments or {}),
        )
        self._tolerated(method, spec.Exchange.DeclareOk, "", until)
        self._declared.add(exchange.name)

    def _tolerated(self, method: Any, answer: type, queue: str, until: float) -> None:
        """Declare; what is there with other arguments, or not ours to declare, is used as it is."""
        try:
            self._call(method, answer, until)
        except ReplyError as exc:
            if not exc.channel or exc.code not in (ACCESS_REFUSED, PRECONDITION_FAILED):
                raise
            if _unequal(exc) in (("durable", "false"), ("auto_delete", "true")):
                self.durable[queue] = False
            self._reopen(until)  # a refused method closes its channel

    def forget_queues(self) -> None:
        """Declare queues again before the next message: one was deleted meanwhile."""
        self._declared.clear()

    def size(self, name: str, until: float) -> int | None:
        """Return how many messages wait in a queue; None where it does not exist."""
        # Passive: asking must not create the queue.
        method = spec.Queue.Declare(queue=name, passive=True)
        try:
            return int(self._call(method, spec.Queue.DeclareOk, until).message_count)
        except ReplyError as exc:
            if not exc.channel or exc.code != NOT_FOUND:
                raise
            self._reopen(until)
            return None

    def arguments(self, queue: Queue, until: float) -> Mapping[str, Any]:
        """Return the arguments of an existing queue that differ from those declared for it.

        AMQP has no question for them, but a declaration that does not fit is refused, and the
        refusal names one difference. Each is taken over until the declaration fits.
        """
        found: dict[str, Any] = {}
        tried = {**(queue.arguments or {}), **PROBES}
        for _ in range(MAX_ARGUMENTS):
            flags = {name: found[name] for name in FLAGS if name in found}
            name, value = self._difference(queue._replace(arguments=tried, **flags), until)
            if name is None:
                break
            found[name] = value == "true" if name in FLAGS else value
            if name in tried or value is not None:
                tried[name] = value
            tried = {k: v for k, v in tried.items() if v is not None and k not in FLAGS}
        return found

    def _difference(self, queue: Queue, until: float) -> tuple[str | None, Any]:
        """Declare an existing queue; return what the broker says does not fit."""
        try:
            self._call(_declaration(queue), spec.Queue.DeclareOk, until)
        except ReplyError as exc:
            if not exc.channel:
                raise
            self._reopen(until)
            return _unequal(exc)
        return None, None

    def is_alive(self) -> bool:
        """Tell whether the broker has not hung up, as far as is known without asking it."""
        return self.frames.is_alive()

    def abandon(self) -> None:
        """Close the connection without waiting."""
        with contextlib.suppress(OSError):
            # Best effort: without it RabbitMQ logs a warning for each connection that ends.
            close = spec.Connection.Close(200, "", 0, 0)
            self.frames.write(frame.Method(0, close).marshal(), monotonic())
        self.frames.close()


def _declaration(queue: Queue) -> Any:
    return spec.Queue.Declare(
        queue=queue.name,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments or {}),
    )


def _unequal(exc: ReplyError) -> tuple[str | None, Any]:
    """Return the name and the real value of what a refused declaration differs in."""
    found = UNEQUAL.search(exc.text)
    if found is None:
        return None, None
    value = found["value"]
    return found["name"], int(value) if value and value.isdecimal() else value
