"""A harness of dispatchers that hold work before a queue in this process."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from dispatchers import BaseDispatcher
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.testing import Harness


class HoldingHarness(Harness):
    """What is held is forwarded by hand: the forwarder's thread does not start."""

    without = {
        "network": "the queue is in this process",
        "processes": "each process has a queue of its own",
    }
    queue: ClassVar[type[MemoryDispatcher]] = MemoryDispatcher
    held: ClassVar[str]
    """An SQL query for the envelopes in the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    @abstractmethod
    def make_before(self, to: BaseDispatcher, /, **options: Any) -> Any:
        """A dispatcher that holds work before this queue."""

    def make_dispatcher(self, **options: Any) -> Any:
        known = self.queue.Options.model_fields
        given = {name: value for name, value in options.items() if name in known}
        queue = self.queue(**{**given, "alias": "queue"})
        for name in ("waive", "capacity"):
            options.pop(name, None)
        self.keep(queue)
        made = self.make_before(queue, **options)
        made.forwarder.start = lambda: None
        return made

    def received(self, dispatcher: Any) -> list[bytes]:
        with closing(sqlite3.connect(self.path)) as connection:
            held = [body for (body,) in connection.execute(self.held)]
        queue = dispatcher.to._queue
        return [
            *held,
            *(work.body for work in queue),
            *(each.body for each in tuple(queue._claimed)),
        ]

    def run_next(self, dispatcher: Any) -> object:
        dispatcher.forwarder.step()
        return dispatcher.to.step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dispatcher.to.dead]

    def crash(self, dispatcher: Any) -> None:
        dispatcher.forwarder.step()
        dispatcher.to.abandon(dispatcher.to.claim())

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        del dispatcher
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
