"""Requests as the queue's tasks."""

from __future__ import annotations

import math
from datetime import UTC
from typing import Any

from google.cloud import tasks_v2

from dispatchers import Backoff, DispatchRequest, ErrorCategory, RejectedError

from ._options import CloudTasksOptions

MAX_SIZE = 1024 * 1024
"""Bytes of a task, headers and all: https://cloud.google.com/tasks/docs/quotas, November 2026."""
LONGEST = 1800.0
"""Seconds that a delivery may take at most: `Task.dispatch_deadline`."""
SLACK = 5.0
"""Seconds that an endpoint gets beyond the time limit of its task, to say so."""
TRACE = frozenset({"traceparent", "tracestate", "baggage"})
"""Headers that travel as HTTP headers too: W3C Trace Context and Baggage."""
MAX_DOUBLINGS = 16
"""The service's own default for a queue."""

CreateTaskRequest: Any = tasks_v2.CreateTaskRequest.pb()


class Messages:
    """Makes messages from one template per queue.

    Args:
        options: The adapter's options.
    """

    def __init__(self, options: CloudTasksOptions) -> None:
        self._options = options
        self._templates: dict[str, Any] = {}
        self.location = f"projects/{options.project}/locations/{options.location}"
        self.url = options.worker_url.rstrip("/") + options.path

    def parent(self, queue: str) -> str:
        """Return the full name of a queue."""
        return f"{self.location}/queues/{queue}"

    def message(self, request: DispatchRequest, body: bytes, queue: str) -> Any:
        """Return the message for a request.

        Raises:
            RejectedError: It would be larger than the service takes.
        """
        message = CreateTaskRequest()
        # A copy of a template costs a fraction of setting every field anew.
        message.CopyFrom(self._templates.get(queue) or self._template(queue))
        task, options = message.task, self._options
        if options.names == "always" or request.idempotency_key or request.deduplicate:
            # A hash, as sequences slow a queue down.
            task.name = f"{message.parent}/tasks/{request.key_digest}"
        task.http_request.body = body
        task.http_request.headers["X-Dispatchers-Task"] = request.task
        if request.headers:
            _carry(task.http_request.headers, request)
        if (due := request.due) is not None:
            task.schedule_time.FromDatetime(due.astimezone(UTC))
        if request.time_limit and request.time_limit > options.dispatch_deadline:
            seconds = min(request.time_limit + SLACK, LONGEST)
            task.dispatch_deadline.FromMilliseconds(round(seconds * 1000))
        if request.max_attempts is not None or request.backoff is not None:
            _retry(task.retry_config, request, options.retry_for)
        # After everything is set: headers and names count as well.
        _refuse_too_large(task)
        return message

    def _template(self, queue: str) -> Any:
        options = self._options
        message = CreateTaskRequest(parent=self.parent(queue))
        http = message.task.http_request
        http.url = self.url
        http.http_method = tasks_v2.HttpMethod.POST.value
        http.headers["Content-Type"] = "application/json"
        if options.service_account:
            http.oidc_token.service_account_email = options.service_account
            http.oidc_token.audience = options.token_audience
        elif options.secret:
            http.headers["Authorization"] = f"Bearer {options.secret.get_secret_value()}"
        message.task.dispatch_deadline.FromMilliseconds(round(options.dispatch_deadline * 1000))
        # Two threads may both make it: they make the same.
        self._templates[queue] = message
        return message


def _carry(headers: Any, request: DispatchRequest) -> None:
    """Carry trace context as HTTP headers where it fits; the envelope has it as well."""
    for name, value in request.headers.items():
        # HTTP headers take printable ASCII only; the envelope keeps what does not fit.
        if name.lower() in TRACE and value.isascii() and value.isprintable():
            headers[name.lower()] = value


def _retry(config: Any, request: DispatchRequest, retry_for: float) -> None:
    """Set attempts and back-off of the work itself.

    The queue drops work once attempts *and* duration are used up, without a trace; the endpoint
    counts attempts itself, and dead-letters. So the duration is long: an endpoint that cannot be
    reached uses up attempts as well.
    """
    waits = request.backoff or Backoff()
    # -1 is without limit: the endpoint counts attempts itself, and dead-letters.
    config.max_attempts = request.max_attempts or -1
    config.max_retry_duration.FromMilliseconds(round(retry_for * 1000))
    config.min_backoff.seconds = math.ceil(waits.initial)  # "truncated to the nearest second"
    config.max_backoff.seconds = max(math.ceil(waits.maximum), config.min_backoff.seconds)
    config.max_doublings = _doublings(waits)


def _doublings(waits: Backoff) -> int:
    """Return how often the wait doubles: the service knows the factors 2 and 1 only."""
    if waits.factor < 2 or waits.initial == 0:  # noqa: PLR2004 - doubling
        return 0
    needed = math.log2(max(1.0, waits.maximum / waits.initial))
    return min(MAX_DOUBLINGS, math.ceil(needed))


def _refuse_too_large(task: Any) -> None:
    size: int = task.ByteSize()
    if size > MAX_SIZE:
        raise RejectedError(
            ErrorCategory.TOO_LARGE,
            f"task of {size} bytes with its headers, the service takes {MAX_SIZE}: "
            "pass a reference to the data instead of the data",
        )
