"""From the broker's delivery tags to the messages of one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._errors import BlockedError, NotTriedError, RefusedError, ReplyError, ReturnedError
from ._message import Message

__all__ = ["Confirms"]


class Confirms:
    """The answers to the messages of one call.

    Args:
        messages: The messages, in the order in which they are written.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.open: dict[int, int] = {}
        """Delivery tags that are not answered, and the positions of their messages."""
        self._messages = messages
        self._answers: dict[int, Exception | None] = {}
        self._returned: set[str] = set()
        self._failure: Exception | None = None

    def settle(self, method: Any, answer: Exception | None) -> None:
        """Note what the broker says of one message, or of all up to it."""
        tag = method.delivery_tag
        for each in [t for t in self.open if t <= tag] if method.multiple else [tag]:
            self._settle(each, answer)

    def _settle(self, tag: int, answer: Exception | None) -> None:
        position = self.open.pop(tag, None)
        if position is not None:
            self._answers[position] = answer

    def settle_all(self) -> None:
        """Count everything that was written as taken: no confirms are asked for."""
        for tag in list(self.open):
            self._settle(tag, None)

    def came_back(self, properties: Any) -> None:
        """Note a message that no queue took; its confirm follows."""
        self._returned.add(str(properties.message_id))

    def fail(self, exc: Exception) -> None:
        """Answer what is open with the connection's failure, and what was not written."""
        self._failure = exc
        # RabbitMQ does not say which message it closed a channel for; one that is alone it was.
        if isinstance(exc, ReplyError) and exc.channel and exc.publishing and len(self.open) == 1:
            exc = RefusedError(exc.code, exc.text, channel=True, publishing=True)
        for tag in list(self.open):
            self._settle(tag, exc)

    def answers(self) -> list[Exception | None]:
        """Return one answer for each message, in order."""
        missing: Exception = NotTriedError("the connection failed before its turn")
        missing.__cause__ = self._failure
        if isinstance(self._failure, BlockedError):
            missing = self._failure
        return [
            ReturnedError(f"no queue took it: {message.routing_key!r}")
            if message.id in self._returned
            else self._answers.get(position, missing)
            for position, message in enumerate(self._messages)
        ]
