"""Queues of a stand-in that runs in a process of its own; the adapter's worker takes from them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from dispatchers_sqs import SQSDispatcher
from dispatchers_sqs._worker import SQSWorker

from dispatchers import BaseDispatcher, ErrorCategory, WorkerOptions
from dispatchers.stores import dead_letters
from dispatchers.testing import Harness

from .service import REGION, Service

__all__ = ["FIFOHarness", "SQSHarness"]


class SQSHarness(Harness):
    """A queue of its own, and two that cases name."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.letters = f"sqlite:{folder / 'dead.db'}"
        self.client = service.client
        self.queue = f"conformance-{uuid4().hex[:12]}{self.suffix}"
        self.urls = {name: self._url_of(name) for name in (self.queue, *self.others)}
        self.workers: dict[int, SQSWorker] = {}

    suffix = ""
    others: tuple[str, ...] = ("theirs", "ours")
    kind: dict[str, str] = {}

    def _url_of(self, name: str) -> str:
        return self.client.create_queue(QueueName=name, Attributes=self.kind)["QueueUrl"]

    def make_dispatcher(self, **options: Any) -> SQSDispatcher:
        given = {"region": REGION, "endpoint": self.service.url, "queue": self.queue, "poll": 1}
        return SQSDispatcher(**{**given, "dead_letters": self.letters, **options})

    @property
    def upstream(self) -> tuple[str, int]:
        return self.service.host, self.service.port

    def connect(self, host: str, port: int, **options: Any) -> SQSDispatcher:
        return self.make_dispatcher(endpoint=f"http://{host}:{port}", **options)

    def queue_name(self, name: str) -> str:
        queue = f"{self.queue.removesuffix(self.suffix)}-{name}{self.suffix}"
        self.urls[queue] = self._url_of(queue)
        return queue

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        yield self.dispatcher(queue=f"missing{self.suffix}"), ErrorCategory.NOT_FOUND

    @contextlib.contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Iterator[None]:
        """The client's calls raise; the adapter's own code is judged with the rest."""

        def call(*args: object, **kwargs: object) -> Any:
            raise exc

        broker = dispatcher.broker
        broker.call = call
        try:
            yield
        finally:
            del broker.call

    def received(self, dispatcher: Any) -> list[bytes]:
        return [body for queue in self.urls for body in self.service.held(queue)]

    def run_next(self, dispatcher: Any) -> object:
        worker = self.workers.get(id(dispatcher))
        if worker is None:
            worker = self.workers[id(dispatcher)] = SQSWorker(dispatcher, WorkerOptions())
        return worker.step()

    def leased(self, seconds: float) -> dict[str, object]:
        return {"lease": math.ceil(seconds)}

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dead_letters(self.letters).list()]

    def crash(self, dispatcher: Any) -> None:
        """A receive whose visibility ends at once is one that nobody has settled."""
        found: list[object] = []
        while not found:
            answer = self.client.receive_message(
                QueueUrl=self.urls[self.queue], VisibilityTimeout=0, WaitTimeSeconds=1
            )
            found = answer.get("Messages", [])

    def close(self) -> None:
        for worker in self.workers.values():
            worker._broker.close()
        for url in self.urls.values():
            self.client.delete_queue(QueueUrl=url)


class FIFOHarness(SQSHarness):
    """The same with queues that keep order."""

    suffix = ".fifo"
    others = ()
    kind = {"FifoQueue": "true"}
