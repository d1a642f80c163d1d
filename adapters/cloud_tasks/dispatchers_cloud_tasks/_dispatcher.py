"""The producer's side: envelopes as HTTP tasks of a queue."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from time import monotonic
from typing import Any, Never

from google.api_core import exceptions as api
from google.cloud import tasks_v2

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DeadLetterStore,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    Sent,
    WorkerOptions,
)
from dispatchers.stores import dead_letters

from ._batch import send_many
from ._errors import category_of, is_certainly_unsent, is_duplicate
from ._gate import calling
from ._link import Link, OwnClient, open_link
from ._message import LONGEST, MAX_SIZE, Messages
from ._options import CloudTasksOptions

__all__ = ["CloudTasksDispatcher"]

Item = tuple[DispatchRequest, bytes]
FATAL = (api.DeadlineExceeded, api.ServiceUnavailable, api.Cancelled)
"""After these nobody knows what has become of the connection."""


class CloudTasksDispatcher(BaseDispatcher):
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
        max_size=MAX_SIZE,
    )
    Options = CloudTasksOptions
    options: CloudTasksOptions

    def __init__(
        self, options: CloudTasksOptions | None = None, *, alias: str | None = None, **settings: Any
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        has_letters = self.options.dead_letters is not None
        self.capabilities = self.capabilities.model_copy(update={"dead_letters": has_letters})
        self._messages = Messages(self.options)
        self._lock = threading.RLock()
        self._open: tuple[int, Link | OwnClient] | None = None
        self._inherited: object = None  # a parent's channel: letting go of it hangs the child

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        until = monotonic() + timeout
        message = self._messages.message(request, body, self._queue(request))
        link = self._link(timeout)
        with calling(), link.ready(until - monotonic()):
            try:
                task = link.client.create_task(
                    tasks_v2.CreateTaskRequest.wrap(message),
                    retry=None,
                    timeout=max(0.001, until - monotonic()),
                    metadata=link.metadata,
                )
            except api.GoogleAPICallError as exc:
                return self._answer(exc, link, message.task.name)
        return Sent(task.name)

    def _answer(self, exc: Exception, link: Link | OwnClient, name: str) -> Sent:
        if is_duplicate(exc):
            return Sent(name, DispatchStatus.DUPLICATE)
        if isinstance(exc, FATAL):
            link.retire()
        raise exc

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        link = self._link(timeout)
        with calling(), link.ready(until - monotonic()):
            messages = [self._message_or_error(request, body) for request, body in items]
            answers = send_many(link, messages, until)
        if any(isinstance(answer, FATAL) for answer in answers):
            link.retire()
        return answers

    def _message_or_error(self, request: DispatchRequest, body: bytes) -> Any:
        try:
            return self._messages.message(request, body, self._queue(request))
        except Exception as exc:  # noqa: BLE001 - each has an answer of its own
            return exc

    def _queue(self, request: DispatchRequest) -> str:
        return request.queue or self.options.queue

    def _link(self, timeout: float) -> Link | OwnClient:
        """This process's connection: a channel does not survive a fork."""
        found = self._open
        if found is None or found[0] != os.getpid() or not found[1].is_alive():
            with calling(), self._lock:  # in this order: no fork happens under the lock
                found = self._open
                if found is None or found[0] != os.getpid() or not found[1].is_alive():
                    if found is not None and found[0] != os.getpid():
                        self._inherited = found
                    found = self._open = os.getpid(), open_link(self.options, timeout)
        return found[1]

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # The rest.

    def _check(self) -> None:
        """A run that takes longer than a delivery may is begun again while it goes on."""
        from dispatchers import catalogue

        if not hasattr(tasks_v2, "BatchCreateTasksRequest"):
            raise ConfigurationError(
                "google-cloud-tasks is older than 2.25: pip install --upgrade "
                "'dispatchers[cloud_tasks]'"
            )
        for task in catalogue.all():
            if (task.time_limit or 0) > LONGEST:
                raise ConfigurationError(
                    f"task {task.name!r} may run for {task.time_limit} s, and the queue of "
                    f"{self.alias!r} delivers it again after {LONGEST:.0f} s: shorten it"
                )

    def _probe(self, *, timeout: float) -> None:
        """Ask for the queue; whoever may only dispatch is answered, too."""
        link = self._link(timeout)
        name = self._messages.parent(self.options.queue)
        with calling(), link.ready(timeout), suppress(api.PermissionDenied):
            link.client.get_queue(name=name, retry=None, timeout=timeout, metadata=link.metadata)

    def _close(self, timeout: float) -> int:
        with self._lock:
            found, self._open = self._open, None
        if found is not None and found[0] == os.getpid():
            found[1].retire()
        return 0

    def _dead_letters(self) -> DeadLetterStore | None:
        return self.letters

    @cached_property
    def letters(self) -> DeadLetterStore | None:
        """The configured store for work that failed for good."""
        spec = self.options.dead_letters
        return None if spec is None else dead_letters(spec)

    def _worker(self, options: WorkerOptions) -> Never:
        raise ConfigurationError(
            f"the queue of {self.alias!r} pushes its work to {self._messages.url}: serve "
            "dispatchers.http there, with any web server"
        )
