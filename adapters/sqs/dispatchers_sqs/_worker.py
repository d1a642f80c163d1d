"""The worker: a long poll takes a message, and a renewed visibility timeout holds it."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from dispatchers import DeadLetter, WorkerOptions
from dispatchers.worker import BaseWorker, Work

from ._broker import Broker
from ._delivery import SURE, Receipt, Receipts
from ._dispatcher import SQSDispatcher
from ._queues import queues_of

ANSWER = 10.0
"""Seconds that the service gets to answer, beyond the time that it is asked to wait."""


class SQSWorker(BaseWorker[Receipt]):
    """Runs the work of the named queues, or of all that are configured.

    Args:
        dispatcher: The dispatcher whose queues they are.

        options: The options of the command line.
    """

    def __init__(self, dispatcher: SQSDispatcher, options: WorkerOptions) -> None:
        super().__init__(dispatcher, options)
        self.lease, self.poll = float(dispatcher.options.lease), float(dispatcher.options.poll)
        # Each thread may wait for a message while heartbeats renew what the others have.
        connections = 2 * options.concurrency + 2
        self._broker = Broker(dispatcher.options, connections=connections)
        self._receipts = Receipts(self._broker)
        self._queues = deque(options.queues or queues_of(dispatcher.options))

    def _take(self, wait: float) -> Work[Receipt] | None:
        for queue in tuple(self._queues):
            self._queues.rotate(-1)  # the next look begins at another queue
            if found := self._received(queue, int(wait / len(self._queues))):
                until = monotonic() + SURE * self.lease
                return _work(queue, Receipt.of(self._broker.url(queue), found[0], until))
        return None

    def _received(self, queue: str, wait: int) -> list[dict[str, Any]]:
        answer = self._broker.call(
            "receive_message",
            queue,
            2 * wait + ANSWER,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait,
            VisibilityTimeout=int(self.lease),
            MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId"],
            MessageAttributeNames=["All"],
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    def _renew(self, work: Work[Receipt]) -> bool:
        return self._receipts.hide(work.handle, self.lease)

    def _complete(self, work: Work[Receipt]) -> None:
        self._receipts.delete(work.handle)

    def _retry(self, work: Work[Receipt], after: float, attempt: int) -> None:
        self._again(work, after, attempt, 1)

    def _give_back(self, work: Work[Receipt], after: float, deliveries: int) -> None:
        # The service counts each delivery: where one shall not count, another message stands for
        # this one, with the counts that are right.
        if work.early or deliveries == work.deliveries:
            self._receipts.hide(work.handle, after)
        else:
            self._again(work, after, work.attempt, deliveries + 1)

    def _again(self, work: Work[Receipt], after: float, attempt: int, deliveries: int) -> None:
        self._receipts.send_later(work.handle, after, attempt, deliveries)
        self._receipts.delete(work.handle)

    def _dead_letter(self, work: Work[Receipt], letter: DeadLetter) -> None:
        if self.dispatcher.letters is None:
            self._receipts.send_dead(work.handle)
        self._receipts.delete(work.handle)


def _work(queue: str, receipt: Receipt) -> Work[Receipt]:
    body, counts = receipt.body.encode(), receipt.counts
    known = receipt.id, queue, counts.wait
    return Work(receipt, body, counts.attempt, counts.deliveries, *known)
