"""One connection to RabbitMQ that publishes: confirms, any number of them under way at once.

pika's own connection knows no time limit for a publish: what a stopped broker costs is a multiple
of its heartbeat. Its protocol objects do the same work over a socket of ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from time import monotonic
from typing import Any

from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL
from dramatiq.common import dq_name, q_name, xq_name
from pika import frame, spec

from ._errors import BrokerSaidError, NackedError, NotTriedError, ReturnedError, UnconfirmedError
from ._frames import Frames
from ._message import Packet

__all__ = ["Link"]

Failure = Exception
CHANNEL = 1
PRECONDITION_FAILED = 406
PROPERTIES = {
    "product": "dispatchers",
    "capabilities": {
        "authentication_failure_close": True,  # says what is wrong, in place of hanging up
        "basic.nack": True,
        "publisher_confirms": True,
    },
}


class Link:
    """A connection that publishes messages for one thread at a time.

    Args:
        broker: Dramatiq's.

        parameters: pika's, of one server.

        until: When connecting has to be done, on the monotonic clock.

        confirm: Wait for RabbitMQ's confirms.

        mandatory: Have RabbitMQ give back what no queue took.

    Raises:
        OSError: No connection.
        BrokerSaidError: RabbitMQ refuses it.
    """

    def __init__(
        self, broker: Any, parameters: Any, until: float, *, confirm: bool, mandatory: bool
    ) -> None:
        self.usable = True
        self._broker = broker
        self._confirm, self._mandatory = confirm, confirm and mandatory
        self._open: dict[int, int] = {}  # delivery tags, and the places of their messages
        self._answers: dict[int, Failure | None] = {}
        self._returned: set[str] = set()
        self._declared: set[str] = set()
        self._heads: dict[str, bytes] = {}  # by queue: the frame that begins a publish
        self._frames = Frames(parameters, until)
        try:
            self._begin(parameters, until)
        except BaseException:
            self.abandon()
            raise

    def _begin(self, parameters: Any, until: float) -> None:
        frames = self._frames
        start = frames.await_method(spec.Connection.Start, until)
        kind, response = parameters.credentials.response_for(start)
        if kind is None:
            raise BrokerSaidError(403, "it takes no credentials of this kind", channel=False)
        ok = spec.Connection.StartOk(PROPERTIES, kind, response)
        tune = frames.call(0, ok, spec.Connection.Tune, until)
        frames.largest = min(tune.frame_max or spec.FRAME_MAX_SIZE, spec.FRAME_MAX_SIZE)
        tuned = spec.Connection.TuneOk(tune.channel_max, frames.largest, 0)  # no heartbeats
        frames.write(frame.Method(0, tuned).marshal(), until)
        opening = spec.Connection.Open(parameters.virtual_host)
        frames.call(0, opening, spec.Connection.OpenOk, until)
        self._open_channel(until)

    def _open_channel(self, until: float) -> None:
        self._sent = 0
        self._frames.call(CHANNEL, spec.Channel.Open(), spec.Channel.OpenOk, until)
        if self._confirm:
            self._frames.call(CHANNEL, spec.Confirm.Select(), spec.Confirm.SelectOk, until)

    # Queues.

    def _declare(self, name: str, until: float) -> None:
        """Once per connection, as Dramatiq does: the workers may not have begun yet."""
        if name in self._declared:
            return
        arguments = self._broker._build_queue_arguments(name)
        self._declare_one(name, arguments, until)
        self._declare_one(dq_name(name), arguments, until)
        self._declare_one(xq_name(name), {"x-message-ttl": DEAD_MESSAGE_TTL}, until)
        self._declared.add(name)

    def _declare_one(self, name: str, arguments: dict[str, Any], until: float) -> None:
        method = spec.Queue.Declare(queue=name, durable=True, arguments=arguments)
        try:
            self._frames.call(CHANNEL, method, spec.Queue.DeclareOk, until)
        except BrokerSaidError as exc:
            if exc.code != PRECONDITION_FAILED or not exc.channel:
                raise
            self._reopen_channel(until)  # it is there, with other arguments: it is used as it is

    def _reopen_channel(self, until: float) -> None:
        closed = frame.Method(CHANNEL, spec.Channel.CloseOk()).marshal()
        self._frames.write(closed, until)
        self._open_channel(until)

    def forget_queues(self) -> None:
        """Declare queues again before the next message: somebody has deleted one."""
        self._declared.clear()

    def size(self, name: str, until: float) -> int:
        """How many messages wait in a queue; none if there is no such queue."""
        method = spec.Queue.Declare(queue=name, passive=True)
        try:
            found = self._frames.call(CHANNEL, method, spec.Queue.DeclareOk, until)
        except BrokerSaidError as exc:
            if not exc.channel:
                raise
            self._reopen_channel(until)
            return 0
        return int(found.message_count)

    # Messages.

    def publish(self, packets: Sequence[Packet], until: float) -> list[Failure | None]:
        """Publish all, then wait for the broker's word on each."""
        self._open.clear()
        self._answers.clear()
        self._returned.clear()
        try:
            for name in dict.fromkeys(packet.queue for packet in packets):
                self._declare(q_name(name), until)
            self._write(packets, until)
            while self._open:
                self._hear(until)
        except Exception as exc:  # noqa: BLE001 - each message has an answer of its own
            self._fail(exc)
        missing = NotTriedError("the connection failed, or the time was over, before its turn")
        return [
            ReturnedError(f"no queue took it: {packet.queue!r}")
            if packet.stored_as in self._returned
            else self._answers.get(place, missing)
            for place, packet in enumerate(packets)
        ]

    def _write(self, packets: Sequence[Packet], until: float) -> None:
        data: list[bytes] = []
        ends: list[int] = []
        for packet in packets:
            data.append(self._marshalled(packet))
            ends.append((ends[-1] if ends else 0) + len(data[-1]))
        try:
            self._frames.write(b"".join(data), until)
        finally:
            starts = (0, *ends)
            for place in range(len(packets)):
                if self._frames.written > starts[place]:
                    self._sent += 1
                    self._open[self._sent] = place
        if not self._confirm:
            for tag in list(self._open):
                self._settle(tag, None)

    def _marshalled(self, packet: Packet) -> bytes:
        head = self._heads.get(packet.queue)
        if head is None:
            method = spec.Basic.Publish(routing_key=packet.queue, mandatory=self._mandatory)
            head = self._heads[packet.queue] = frame.Method(CHANNEL, method).marshal()
        properties = spec.BasicProperties(
            delivery_mode=2, priority=packet.priority, message_id=packet.stored_as
        )
        header = frame.Header(CHANNEL, len(packet.data), properties).marshal()
        room = self._frames.largest - spec.FRAME_HEADER_SIZE - spec.FRAME_END_SIZE
        parts = [
            frame.Body(CHANNEL, packet.data[start : start + room]).marshal()
            for start in range(0, len(packet.data), room)
        ]
        return b"".join([head, header, *parts])

    def _hear(self, until: float) -> None:
        try:
            said = self._frames.read(until)
        except TimeoutError as exc:
            raise UnconfirmedError("the broker has not confirmed it in time") from exc
        if isinstance(said, frame.Header):  # of a message that comes back
            self._returned.add(str(said.properties.message_id))
        method = getattr(said, "method", None)
        if isinstance(method, spec.Basic.Ack):
            self._settle_all(method, None)
        elif isinstance(method, spec.Basic.Nack):
            self._settle_all(method, NackedError("the broker refused it"))

    def _settle_all(self, method: Any, answer: Failure | None) -> None:
        tag = method.delivery_tag
        tags = [each for each in self._open if each <= tag] if method.multiple else [tag]
        for each in tags:
            self._settle(each, answer)

    def _settle(self, tag: int, answer: Failure | None) -> None:
        place = self._open.pop(tag, None)
        if place is not None:
            self._answers[place] = answer

    def _fail(self, exc: Exception) -> None:
        self.usable = False
        for tag in list(self._open):
            self._settle(tag, exc)

    def is_alive(self) -> bool:
        """Whether the broker has not hung up, as far as can be known without asking it."""
        return self._frames.is_quiet()

    def abandon(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            farewell = spec.Connection.Close(200, "", 0, 0)
            self._frames.write(frame.Method(0, farewell).marshal(), monotonic())
        self._frames.close()
