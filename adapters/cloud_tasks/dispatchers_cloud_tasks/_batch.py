"""Many tasks in few calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

import grpc
from google.api_core import exceptions as api
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.cloud import tasks_v2

from dispatchers import DispatchStatus, ErrorCategory, RejectedError, Sent

from ._errors import is_duplicate, refuses_batches
from ._link import Link, OwnClient

__all__ = ["send_many"]

AT_ONCE = 100
"""Tasks of one call: `BatchCreateTasksRequest.requests`."""
BYTES = 3 * 1024 * 1024
"""Bytes of one call; gRPC servers take 4 MiB unless they say otherwise."""

BatchRequest: Any = tasks_v2.BatchCreateTasksRequest.pb()
Answer = Sent | Exception


def send_many(link: Link | OwnClient, messages: Sequence[Any], until: float) -> list[Answer]:
    """Hand tasks over, those of one queue in calls of up to a hundred.

    Args:
        link: A connection that is ready.

        messages: Each a `CreateTaskRequest`, or the exception that is its answer already.

        until: When to stop, of the monotonic clock.

    Returns:
        An answer for each, in order.
    """
    answers: list[Answer | None] = [m if isinstance(m, Exception) else None for m in messages]
    for places in _chunks(messages):
        chunk = [messages[place] for place in places]
        for place, answer in zip(places, _chunk(link, chunk, until), strict=True):
            answers[place] = answer
    return [answer for answer in answers if answer is not None]


def _chunks(messages: Sequence[Any]) -> list[list[int]]:
    """Places of messages that go into one call."""
    full: list[list[int]] = []
    filling: dict[str, tuple[list[int], int]] = {}
    for place, message in enumerate(messages):
        if isinstance(message, Exception):
            continue
        places, size = filling.get(message.parent, ([], 0))
        more: int = message.ByteSize()
        if len(places) == AT_ONCE or (places and size + more > BYTES):
            full.append(places)
            places, size = [], 0
        filling[message.parent] = ([*places, place], size + more)
    return full + [places for places, _ in filling.values()]


def _chunk(link: Link | OwnClient, messages: Sequence[Any], until: float) -> Iterable[Answer]:
    left = until - monotonic()
    if left <= 0:
        late = RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before its turn")
        return [late] * len(messages)
    try:
        return _batch(link, messages, left)
    except api.GoogleAPICallError as exc:
        if refuses_batches(exc):
            return _at_the_same_time(link, messages, until)
        return [exc] * len(messages)


def _batch(link: Link | OwnClient, messages: Sequence[Any], timeout: float) -> list[Answer]:
    until = monotonic() + timeout
    batch = BatchRequest(parent=messages[0].parent, requests=messages)
    operation: Any = link.client.batch_create_tasks(
        tasks_v2.BatchCreateTasksRequest.wrap(batch),
        retry=None,
        timeout=timeout,
        metadata=link.metadata,
    )
    if not operation.operation.done:
        _await(operation, until)
    return _answers(operation, messages)


def _await(operation: Any, until: float) -> None:
    """An operation that goes on; what is not known of it in time is not known."""
    try:
        operation.result(timeout=max(0.001, until - monotonic()))
    except TimeoutError as exc:
        raise api.DeadlineExceeded("the batch was still under way at the deadline") from exc
    except api.GoogleAPICallError:
        if not operation.metadata or not operation.metadata.failed_requests:
            raise


def _answers(operation: Any, messages: Sequence[Any]) -> list[Answer]:
    failed = dict(operation.metadata.failed_requests) if operation.metadata else {}
    if operation.operation.HasField("error") and not failed:
        error = operation.operation.error
        return [_error(error.code, error.message)] * len(messages)
    made = iter(_names(operation))
    return [
        _refused(failed[place], message.task.name) if place in failed else Sent(next(made, None))
        for place, message in enumerate(messages)
    ]


def _names(operation: Any) -> list[str]:
    done = tasks_v2.BatchCreateTasksResponse.pb()()
    operation.operation.response.Unpack(done)
    return [task.name for task in done.tasks]


def _refused(status: Any, name: str) -> Answer:
    return _told(_error(status.code, status.message), name)


def _error(code: int, message: str) -> Exception:
    error: Exception = api.from_grpc_status(_CODES.get(code, grpc.StatusCode.UNKNOWN), message)
    return error


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _told(exc: Exception, name: str) -> Answer:
    return Sent(name, DispatchStatus.DUPLICATE) if is_duplicate(exc) else exc


def _at_the_same_time(
    link: Link | OwnClient, messages: Sequence[Any], until: float
) -> list[Answer]:
    """A call for each, all under way at once; over transports other than gRPC one by one."""
    create: Any = getattr(link.client.transport, "create_task", None)
    if not hasattr(create, "future"):
        return [_single(link, message, until) for message in messages]
    calls = [
        create.future(
            tasks_v2.CreateTaskRequest.wrap(message),
            timeout=max(0.001, until - monotonic()),
            metadata=(*link.metadata, to_grpc_metadata((("parent", message.parent),))),
        )
        for message in messages
    ]
    return [
        _awaited(call, message.task.name) for call, message in zip(calls, messages, strict=True)
    ]


def _awaited(call: Any, name: str) -> Answer:
    try:
        return Sent(call.result().name)
    except grpc.RpcError as exc:
        return _told(api.from_grpc_error(exc), name)


def _single(link: Link | OwnClient, message: Any, until: float) -> Answer:
    left = until - monotonic()
    if left <= 0:
        return RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before its turn")
    try:
        task = link.client.create_task(
            tasks_v2.CreateTaskRequest.wrap(message),
            retry=None,
            timeout=left,
            metadata=link.metadata,
        )
    except api.GoogleAPICallError as exc:
        return _told(exc, message.task.name)
    return Sent(task.name)
