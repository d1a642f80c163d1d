"""Limits and retry rules of the service, from its documentation."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

from grpc import StatusCode

from ._messages import Duration, Queue, seconds_of, since_epoch

__all__ = [
    "MAX_SIZE",
    "RefusedError",
    "backoff",
    "check_queue",
    "check_task",
    "gives_up",
    "retry_after",
    "with_defaults",
]

MAX_SIZE = 1024 * 1024
"""Bytes of a task: https://cloud.google.com/tasks/docs/quotas, "Task size", November 2026."""
MAX_AHEAD = 30 * 86400
"""Seconds that a task may be scheduled ahead: the same page."""
MAX_URL = 2083
MAX_HEADERS = 80 * 1024
DEADLINES = (15.0, 1800.0)
DEFAULT_DEADLINE = 600
LEEWAY = 60.0
"""Seconds that a caller's clock may be ahead."""
TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")
QUEUE_NAME = re.compile(
    r"projects/[A-Za-z0-9:.-]+/locations/[A-Za-z0-9-]+/queues/[A-Za-z0-9-]{1,100}"
)
WITH_BODY = ("POST", "PUT", "PATCH")


class RefusedError(Exception):
    """A call is answered with an error.

    Args:
        code: gRPC's status code.

        message: For people.
    """

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _invalid(message: str) -> RefusedError:
    return RefusedError(StatusCode.INVALID_ARGUMENT, message)


def check_queue(queue: Any) -> None:
    """Refuse a queue that the service would refuse.

    Raises:
        RefusedError: It may not.
    """
    if not QUEUE_NAME.fullmatch(queue.name):
        raise _invalid(f"Queue name must match {QUEUE_NAME.pattern}")


def with_defaults(queue: Any) -> Any:
    """The queue with what the service fills in: `Queue.retry_config`, "will pick the default"."""
    retry = queue.retry_config
    # 0 is protocol buffers' value for a field that was not set.
    retry.max_attempts = retry.max_attempts or 100
    retry.max_doublings = retry.max_doublings or 16
    if not retry.HasField("min_backoff"):
        retry.min_backoff.CopyFrom(Duration(nanos=100_000_000))
    if not retry.HasField("max_backoff"):
        retry.max_backoff.CopyFrom(Duration(seconds=3600))
    queue.state = queue.state or Queue.State.RUNNING
    return queue


def check_task(queue: str, task: Any) -> None:
    """Refuse a task that the service would refuse.

    Raises:
        RefusedError: It may not.
    """
    if task.name and not (
        task.name.startswith(f"{queue}/tasks/")
        and TASK_ID.fullmatch(task.name.removeprefix(f"{queue}/tasks/"))
    ):
        raise _invalid("Task name must be PARENT/tasks/TASK_ID, of letters, digits, - and _")
    if task.ByteSize() > MAX_SIZE:
        raise _invalid(f"Task size too large: {task.ByteSize()} of {MAX_SIZE} bytes")
    if since_epoch(task.schedule_time) > time.time() + MAX_AHEAD + LEEWAY:
        raise _invalid("Task.schedule_time must be at most 30 days in the future")
    _check_deadline(task)
    _check_request(task)


def _check_deadline(task: Any) -> None:
    if task.HasField("dispatch_deadline"):
        seconds = seconds_of(task.dispatch_deadline)
        if not DEADLINES[0] <= seconds <= DEADLINES[1]:
            raise _invalid("Task.dispatchDeadline must be between [15s, 30m]")


def _check_request(task: Any) -> None:
    request = task.http_request
    if not task.HasField("http_request"):
        raise _invalid("Task.http_request must be set: this is not App Engine")
    if not request.url.startswith(("http://", "https://")) or len(request.url) > MAX_URL:
        raise _invalid(
            "HttpRequest.url must begin with http:// or https://, 2083 characters at most"
        )
    if request.body and method_of(request) not in WITH_BODY:
        raise _invalid("HTTP request body is allowed for POST, PUT and PATCH only")
    if sum(len(k) + len(v) for k, v in request.headers.items()) >= MAX_HEADERS:
        raise _invalid("HTTP headers must be smaller than 80KB")
    if request.HasField("oidc_token") and not request.oidc_token.service_account_email:
        raise _invalid("OidcToken.service_account_email must be set")


def method_of(request: Any) -> str:
    """The HTTP method of a task, `POST` by default."""
    number: int = request.http_method
    methods: dict[int, str] = {1: "POST", 2: "GET", 3: "HEAD", 4: "PUT", 5: "DELETE", 6: "PATCH"}
    return methods.get(number, "OPTIONS" if number else "POST")


def retry_config(queue: Any, task: Any) -> Any:
    """The task's own, else its queue's."""
    return task.retry_config if task.HasField("retry_config") else queue.retry_config


def backoff(config: Any, failures: int) -> float:
    """Seconds after so many failed attempts: doubled, then linear, then the longest.

    `RetryConfig.max_doublings`: 10 s, 300 s and 3 doublings give 10, 20, 40, 80, 160, 240, 300.
    """
    first, longest = seconds_of(config.min_backoff), seconds_of(config.max_backoff)
    doublings: int = config.max_doublings
    number = max(0, failures - 1)
    if number <= doublings:
        # Bounded: a power of a task that failed thousands of times would overflow.
        wait = first * 2.0 ** min(number, 64)
    else:
        wait = first * 2.0**doublings * (number - doublings + 1)
    return min(wait, longest)


def gives_up(config: Any, task: Any, now: float) -> bool:
    """Return true if attempts and duration are both used up (`RetryConfig.max_attempts`)."""
    # Negative is without limit.
    if config.max_attempts < 0 or task.dispatch_count < config.max_attempts:
        return False
    tried_for = now - since_epoch(task.first_attempt.dispatch_time)
    return tried_for >= seconds_of(config.max_retry_duration)


def retry_after(text: str | None, now: float) -> float:
    """Seconds that a worker's `Retry-After` asks for, a number or a date; 0 for nonsense."""
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return 0.0
