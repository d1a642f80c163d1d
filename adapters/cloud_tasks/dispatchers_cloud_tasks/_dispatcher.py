"""The producer's side: envelopes as HTTP tasks of a queue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any, Never

from google.api_core import exceptions as api
from google.cloud import tasks_v2

from dispatchers import (
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    ErrorCategory,
    PublishingDispatcher,
    Sent,
    Stats,
    WorkerOptions,
)

from ._batch import send_many
from ._broker import Broker
from ._connection import gate
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

    def _publish(self, messages: Sequence[Any], timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        connection = self.broker.connection(timeout)
        # Through the gate, as no fork may happen during a call of gRPC's.
        with gate.entered(), connection.ready(until - monotonic()):
            answers = send_many(connection, messages, until)
        # The next dispatch begins on a new channel: this one may be stuck behind a dead peer.
        if any(isinstance(answer, FATAL) for answer in answers):
            connection.retire()
        return answers

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

    def _worker(self, options: WorkerOptions) -> Never:
        raise ConfigurationError(
            f"the queue of {self.alias!r} pushes its work to {self.messages.url}: serve "
            "dispatchers.http there, with any web server"
        )
