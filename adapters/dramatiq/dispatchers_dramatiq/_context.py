"""State that the consumers and actors of one broker share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from dispatchers import get_dispatcher
from dispatchers.delivery import say

from ._dispatcher import DramatiqDispatcher
from ._message import Packet


class Context:
    """The state that the consumers and actors of a broker share.

    Args:
        broker: Dramatiq's.
    """

    def __init__(self, broker: Any) -> None:
        self.named: DramatiqDispatcher | str = "default"
        """The dispatcher that publishes further attempts, or its alias."""
        self.actors: set[str] = set()
        """The names of our actors."""
        self.stopping = threading.Event()
        """Set while the worker is being stopped."""
        self.is_over = False
        """The grace of a worker that stops is over: what still runs goes back."""
        self.running: dict[int, Any] = {}
        """The messages whose runs have not ended, by their identity."""
        self._broker = broker
        self._substitute: DramatiqDispatcher | None = None

    def dispatcher(self) -> DramatiqDispatcher:
        """Return the dispatcher that this worker works for.

        Where the configuration names none of this broker, it is one of the broker alone.
        """
        named = self.named
        found = get_dispatcher(named) if isinstance(named, str) else named
        if isinstance(found, DramatiqDispatcher) and found.broker.dramatiq is self._broker:
            return found
        if self._substitute is None:
            options = found.options if isinstance(found, DramatiqDispatcher) else None
            self._substitute = DramatiqDispatcher(
                options, alias="dramatiq", broker=self._broker, url=None
            )
        return self._substitute

    def publish(self, packets: Sequence[Packet]) -> Sequence[Exception | None]:
        """Publish, confirmed; the answers are logged where they are errors."""
        answers: Sequence[Exception | None]
        try:
            dispatcher = self.dispatcher()
            answers = dispatcher.publisher.publish(packets, dispatcher.options.deadline)
        except Exception as exc:  # noqa: BLE001 - C9: the answer of them all
            answers = [exc] * len(packets)
        if errors := [type(each).__name__ for each in answers if each is not None]:
            say(logging.ERROR, "%d messages could not be published: %s", len(errors), errors[0])
        return answers
