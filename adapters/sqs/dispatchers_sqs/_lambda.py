"""A handler for AWS Lambda: an event source mapping delivers batches of messages.

Its `FunctionResponseTypes` has to name `ReportBatchItemFailures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dispatchers import ConfigurationError, DeadLetter, Outcome, get_dispatcher, run_settings
from dispatchers.delivery import Delivery, import_modules, process

from ._delivery import Receipt, Receipts
from ._dispatcher import SQSDispatcher

Event = Mapping[str, Any]
LAST = 1.0
"""Seconds before the end of the function's time in which no more work is begun."""


def lambda_handler(
    alias: str = "default",
) -> Callable[[Mapping[str, Any], Any], dict[str, list[dict[str, str]]]]:
    """Return a handler that runs the messages of an event and reports those that come again.

    Configuration and task modules are read when the first event comes.

    Args:
        alias: The dispatcher whose queue is the event source.

    Returns:
        A function of event and context; it answers `{"batchItemFailures": [...]}`.
    """

    def handle(event: Event, context: Any) -> dict[str, list[dict[str, str]]]:
        import_modules()
        dispatcher = get_dispatcher(alias)
        if not isinstance(dispatcher, SQSDispatcher):
            raise ConfigurationError(f"dispatcher {alias!r} is not of the backend 'sqs'")
        failed = _Batch(dispatcher, context).failed(event["Records"])
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    return handle


class _Batch:
    def __init__(self, dispatcher: SQSDispatcher, context: Any) -> None:
        self._dispatcher = dispatcher
        self._settings = run_settings(dispatcher.options)
        self._receipts = Receipts(dispatcher.broker)
        self._context = context

    def failed(self, records: list[dict[str, Any]]) -> list[str]:
        """Run the records; return the ids of those that the queue has to keep."""
        failed: list[str] = []
        held: set[str] = set()
        for record in records:
            group = record["attributes"].get("MessageGroupId")
            # The order of a group: what follows a message that comes again comes again, too.
            if group in held or not self._ran(record):
                failed.append(record["messageId"])
                held |= {group} if group else set()
        return failed

    def _ran(self, record: dict[str, Any]) -> bool:
        if self._is_ending():
            return False
        url = self._dispatcher.broker.url_of(record["eventSourceARN"])
        delivery = _Record(self._dispatcher, self._receipts, Receipt.of(url, record))
        if (wait := delivery.receipt.counts.wait) > 0:
            self._receipts.hide(delivery.receipt, wait)
            return False
        try:
            process(
                delivery,
                self._settings,
                letters=self._dispatcher.letters,
                stopping=self._is_ending,
            )
        except SystemExit:  # of a handler: its delivery counts, the others go on
            return False
        return delivery.is_settled

    def _is_ending(self) -> bool:
        return bool(self._context.get_remaining_time_in_millis() < LAST * 1000)


class _Record(Delivery):
    """One record of an event: what is not reported as failed is deleted by Lambda."""

    def __init__(self, dispatcher: SQSDispatcher, receipts: Receipts, receipt: Receipt) -> None:
        self.receipt = receipt
        self.body, self.id, self.queue = receipt.body.encode(), receipt.id, receipt.queue
        self.attempt, self.deliveries = receipt.counts.attempt, receipt.counts.deliveries
        self.is_settled = True
        self._dispatcher, self._receipts = dispatcher, receipts

    def complete(self, outcome: Outcome) -> None:
        """Leave the rest to Lambda."""

    def retry(self, outcome: Outcome) -> None:
        self._receipts.send_later(self.receipt, outcome.after, outcome.attempt + 1, 1)

    def give_back(self, after: float) -> None:
        self._receipts.send_later(self.receipt, after, self.attempt, self.deliveries)

    def dead_letter(self, outcome: Outcome, letter: DeadLetter) -> None:
        if self._dispatcher.letters is None:
            self._receipts.send_dead(self.receipt)

    def abandon(self) -> None:
        self.is_settled = False
