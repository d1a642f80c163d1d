"""The producer's side: envelopes as messages of a queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from dispatchers import (
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    ErrorCategory,
    PublishingDispatcher,
    Sent,
    Stats,
)

from ._broker import Broker
from ._clients import new_session
from ._errors import category_of, is_certainly_unsent
from ._message import MAX_DELAY, MAX_ENTRIES, MAX_ENVELOPE, MAX_SIZE, Message, message
from ._options import SQSOptions
from ._queues import figures, warnings

LONGEST = 43200.0
"""Seconds for which a message can be held at most, however often that is renewed."""
FIFO: dict[str, object] = {"delay": False, "max_delay": None}
STANDARD: dict[str, object] = {"deduplicate": False}
"""Capabilities that queues of a kind have not."""


class SQSDispatcher(PublishingDispatcher[Message]):
    """Hands work over to queues of Amazon SQS: `ACCEPTED` once the service has answered.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: Options are missing or do not fit; the message names them all.
    """

    name = "sqs"
    contract = 1
    library = "boto3"
    guarded = True  # neither name resolution nor the refresh of credentials has a limit of its own
    batch_size, batch_bytes = MAX_ENTRIES, MAX_SIZE
    capabilities = Capabilities(
        delay=True,
        max_delay=timedelta(seconds=MAX_DELAY),
        retries=True,
        deduplicate=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        worker=True,
        dead_letters=True,
        stats=True,
        max_size=MAX_ENVELOPE,
    )
    Options = SQSOptions
    options: SQSOptions
    worker = "dispatchers_sqs._worker:SQSWorker"
    redelivery_cure = "no message can be held for longer: split the task"

    def __init__(
        self, options: SQSOptions | None = None, *, alias: str | None = None, **settings: Any
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        able = FIFO if self.options.is_fifo else STANDARD
        self.capabilities = self.capabilities.model_copy(update=able)
        self.broker = Broker(self.options)

    def _prepare(self, request: DispatchRequest, body: bytes) -> Message:
        return message(request, body, request.queue or self.options.queue, self.options)

    def _lane_of(self, message: Message) -> str:
        return message.queue

    def _size_of(self, message: Message) -> int:
        return message.size

    def _publish(self, messages: Sequence[Message], timeout: float) -> Sequence[Sent | Exception]:
        return self.broker.send(messages, timeout)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    @property
    def redelivery_window(self) -> float:
        """Seconds for which a worker can hold a message at most."""
        return LONGEST

    def _check(self) -> None:
        if not (self.options.region or new_session().get_config_variable("region")):
            raise ConfigurationError(
                f"{self.alias!r} has no region: set the option `region`, or AWS_DEFAULT_REGION"
            )

    def _probe(self, *, timeout: float) -> Iterable[str] | None:
        return warnings(self.broker, self.options)

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        return figures(self.broker, self.options, self.letters)

    def _close(self, timeout: float) -> int:
        self.broker.close()
        return 0
