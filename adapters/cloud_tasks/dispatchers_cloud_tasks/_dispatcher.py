"""The producer's side: envelopes as HTTP tasks of a queue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any

from google.api_core import exceptions as api
from google.cloud import tasks_v2

from dispatchers import (
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    Stats,
)

from ._batch import BATCH_BYTES, BATCH_SIZE, send_many
from ._broker import Broker
from ._connection import Connection, OwnClient, gate
from ._endpoint import check_against_endpoint
from ._errors import category_of, is_certainly_unsent
from ._message import LONGEST, MAX_SIZE, Messages
from ._options import CloudTasksOptions
from ._stats import figures

FATAL = (api.DeadlineExceeded, api.ServiceUnavailable, api.Cancelled)
"""After these it is unknown what has become of the connection."""


class CloudTasksDispatcher(PublishingDispatcher[Any]):
    """Hands work over to a queue of Google Cloud Tasks: `ACCEPTED` once it has answered.

    The queue pushes it to the worker's HTTP endpoint, `dispatchers.http`, until that acknowledges.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: Options are missing or do not fit; the message names them all.
    """

    name = "cloud_tasks"
    contract = 1
    library = "google.cloud.tasks_v2"
    capabilities = Capabilities(
        delay=True,
        max_delay=timedelta(days=30),  # https://cloud.google.com/tasks/docs/quotas
        retries=True,
        deduplicate=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        dead_letters=True,
        stats=True,
        max_size=MAX_SIZE,
    )
    batch_size, batch_bytes = BATCH_SIZE, BATCH_BYTES
    Options = CloudTasksOptions
    options: CloudTasksOptions

    def __init__(
        self, options: CloudTasksOptions | None = None, *, alias: str | None = None, **settings: Any
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.messages = Messages(self.options)
        self.broker = Broker(self.options)

    def _prepare(self, request: DispatchRequest, body: bytes) -> Any:
        return self.messages.message(request, body, request.queue or self.options.queue)

    def _lane_of(self, message: Any) -> str:
        return str(message.parent)

    def _size_of(self, message: Any) -> int:
        return int(message.ByteSize())

    def _publish(self, messages: Sequence[Any], timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        connection = self.broker.connection(timeout)
        may_be_stale = connection.has_answered
        answers = self._handed_over(connection, messages, until)
        if may_be_stale:
            self._repeat_lost(messages, answers, until)
        return answers

    def _handed_over(
        self, connection: Connection | OwnClient, messages: Sequence[Any], until: float
    ) -> list[Sent | Exception]:
        # Through the gate, as no fork may happen during a call of gRPC's.
        with gate.entered(), connection.ready(until - monotonic()):
            answers = send_many(connection, messages, until)
        # The next dispatch begins on a new channel: this one may be stuck behind a dead peer.
        if any(isinstance(answer, FATAL) for answer in answers):
            connection.retire()
        else:
            connection.has_answered = True
        return answers

    def _repeat_lost(
        self, messages: Sequence[Any], answers: list[Sent | Exception], until: float
    ) -> None:
        """Hand over once more what a connection has lost that ended between two calls.

        gRPC sees the end on a thread of its own, when a call may be under way. The service knows
        the task's name, so that it is not made twice; one without a name stays unknown.
        """
        lost = [
            place
            for place, answer in enumerate(answers)
            if isinstance(answer, api.ServiceUnavailable) and messages[place].task.name
        ]
        if not lost:
            return
        with suppress(RejectedError):  # no new connection: what became of the first is unknown
            connection = self.broker.connection(until - monotonic())
            later = self._handed_over(connection, [messages[place] for place in lost], until)
            for place, answer in zip(lost, later, strict=True):
                if isinstance(answer, Sent):
                    answers[place] = answer

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    @property
    def redelivery_window(self) -> float:
        """Seconds that a delivery may take at most, whatever the queue's settings."""
        return LONGEST

    def _check(self) -> None:
        # The call itself is looked for, not a version: it came with 2.25.
        if not hasattr(tasks_v2, "BatchCreateTasksRequest"):
            raise ConfigurationError(
                "google-cloud-tasks is older than 2.25: pip install --upgrade "
                "'dispatchers[cloud-tasks]'"
            )
        check_against_endpoint(self.options, self.alias)

    def _probe(self, *, timeout: float) -> None:
        """Ask for the queue; an account that may only dispatch is answered, too."""
        connection = self.broker.connection(timeout)
        name = self.messages.parent(self.options.queue)
        with gate.entered(), connection.ready(timeout), suppress(api.PermissionDenied):
            connection.client.get_queue(
                name=name, retry=None, timeout=timeout, metadata=connection.metadata
            )

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        connection = self.broker.connection(timeout)
        # Each queue once, in the order of the options: the default may be listed again.
        queues = dict.fromkeys((self.options.queue, *self.options.queues))
        names = {queue: self.messages.parent(queue) for queue in queues}
        with gate.entered(), connection.ready(timeout):
            return figures(connection, names, timeout, self.letters)

    def _close(self, timeout: float) -> int:
        self.broker.close()
        return 0

    @property
    def run_by(self) -> str:
        """The endpoint that the queue pushes its work to."""
        return (
            f"the endpoint that its queue pushes to, {self.messages.url}: serve dispatchers.http "
            "there, with any web server"
        )
