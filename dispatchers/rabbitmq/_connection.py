"""One connection that publishes, with any number of messages waiting for their confirms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pika import frame, spec

from ._channel import CHANNEL, Channel
from ._confirms import Confirms
from ._errors import BlockedError, NackedError, UnconfirmedError
from ._message import Message
from ._properties import content_header
from ._server import Server

__all__ = ["Connection"]


class Connection(Channel):
    """A connection that publishes for one thread at a time.

    Args:
        server: The server.

        until: When connecting has to be done, on the monotonic clock.

        confirm: Wait for the broker's confirms.

        mandatory: With `confirm`, have the broker return what no queue took.

    Raises:
        OSError: No connection.
        ReplyError: RabbitMQ refuses it.
    """

    def __init__(self, server: Server, until: float, *, confirm: bool, mandatory: bool) -> None:
        self.usable = True
        """False once it failed: what comes over it may answer an earlier question."""
        self._mandatory = confirm and mandatory
        self._heads: dict[tuple[str, str], bytes] = {}
        super().__init__(server, until, confirm=confirm)

    def publish(self, messages: Sequence[Message], until: float) -> list[Exception | None]:
        """Publish all, then wait for the broker's answer to each; None is a confirm."""
        confirms = Confirms(messages)
        if self.frames.blocked is not None:
            # Not written at all: what is written while an alarm is on may be lost with the broker.
            confirms.fail(BlockedError(f"the broker takes no messages ({self.frames.blocked})"))
            return confirms.answers()
        try:
            for queue in {q.name: q for message in messages for q in message.queues}.values():
                self.declare(queue, until)
            self._write(messages, confirms, until)
            while confirms.open:
                self._read_one(confirms, until)
        except Exception as exc:  # noqa: BLE001 - each message has an answer of its own
            self.usable = False
            confirms.fail(exc)
        return confirms.answers()

    def _write(self, messages: Sequence[Message], confirms: Confirms, until: float) -> None:
        """Write all in one go; a message counts as sent from its first byte on."""
        frames = [self._marshalled(message) for message in messages]
        try:
            # One write for the whole batch: a system call each would take most of the time.
            self.frames.write(b"".join(frames), until)
        finally:
            start = 0
            for position, data in enumerate(frames):
                # Partly written counts as sent: the outcome is unknown then (C3).
                if self.frames.written > start:
                    self.sent += 1
                    confirms.open[self.sent] = position
                start += len(data)
        if not self._confirm:
            # Without confirms nothing more comes: what was written counts as sent.
            confirms.settle_all()

    def _marshalled(self, message: Message) -> bytes:
        properties = {"delivery_mode": 2, "message_id": message.id, **(message.properties or {})}
        header = content_header(len(message.data), properties)
        size = self.frames.max_size - spec.FRAME_HEADER_SIZE - spec.FRAME_END_SIZE
        parts = [
            frame.Body(CHANNEL, message.data[start : start + size]).marshal()
            for start in range(0, len(message.data), size)
        ]
        return b"".join([self._head(message), header, *parts])

    def _head(self, message: Message) -> bytes:
        """Return the frame that begins a publish, the same for all messages of a queue."""
        key = (message.exchange, message.routing_key)
        if (found := self._heads.get(key)) is None:
            method = spec.Basic.Publish(0, *key, mandatory=self._mandatory)
            found = self._heads[key] = frame.Method(CHANNEL, method).marshal()
        return found

    def _read_one(self, confirms: Confirms, until: float) -> None:
        try:
            said: Any = self.frames.read(until)
        except TimeoutError as exc:
            blocked = self.frames.blocked
            why = f": it takes no messages for now ({blocked})" if blocked else ""
            raise UnconfirmedError(f"the broker has not confirmed it in time{why}") from exc
        if isinstance(said, frame.Header):
            # A returned message is announced before its confirm, by its properties.
            confirms.came_back(said.properties)
        method = getattr(said, "method", None)
        if isinstance(method, spec.Basic.Ack):
            confirms.settle(method, None)
        elif isinstance(method, spec.Basic.Nack):
            confirms.settle(method, NackedError("the broker refused it"))
