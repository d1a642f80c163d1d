"""Many tasks in few calls."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import grpc
from google.api_core import exceptions as api
from google.api_core.gapic_v1.routing_header import to_grpc_metadata
from google.cloud import tasks_v2

from dispatchers import DispatchStatus, ErrorCategory, RejectedError, Sent

from ._connection import Connection, OwnClient
from ._errors import is_duplicate, refuses_batches

BATCH_SIZE = 100
"""Tasks of one call: `BatchCreateTasksRequest.requests`."""
BATCH_BYTES = 3 * 1024 * 1024
"""Bytes of one call; gRPC servers take 4 MiB unless they say otherwise."""

BatchRequest: Any = tasks_v2.BatchCreateTasksRequest.pb()
Answer = Sent | Exception
Open = Connection | OwnClient


def send_many(connection: Open, messages: Sequence[Any], until: float) -> list[Answer]:
    """Hand tasks of one queue over, in one call.

    Args:
        connection: A connection that is ready.

        messages: Each a `CreateTaskRequest`.

        until: When to stop, of the monotonic clock.

    Returns:
        An answer for each, in order.
    """
    # A plain call: its error says more than one that is wrapped in an operation.
    if len(messages) == 1:
        return [_single(connection, messages[0], until)]
    try:
        return _batch(connection, messages, until)
    except api.GoogleAPICallError as exc:
        # A service or an emulator without the batch call takes them one by one.
        if refuses_batches(exc):
            return _at_the_same_time(connection, messages, until)
        return [exc] * len(messages)


def _batch(connection: Open, messages: Sequence[Any], until: float) -> list[Answer]:
    timeout = max(0.001, until - monotonic())
    batch = BatchRequest(parent=messages[0].parent, requests=messages)
    # Without the client's own retries: a lost reply could have the batch made twice.
    operation: Any = connection.client.batch_create_tasks(
        tasks_v2.BatchCreateTasksRequest.wrap(batch),
        retry=None,
        timeout=timeout,
        metadata=connection.metadata,
    )
    if not operation.operation.done:
        _await(operation, until)
    return _answers(operation, messages)


def _await(operation: Any, until: float) -> None:
    """Wait for an operation that goes on; without its end in time, its answers are unknown."""
    try:
        operation.result(timeout=max(0.001, until - monotonic()))
    except TimeoutError as exc:
        raise api.DeadlineExceeded("the batch was still under way at the deadline") from exc
    except api.GoogleAPICallError:
        # An operation that names the refused ones has made the others: each gets its own answer.
        if not operation.metadata or not operation.metadata.failed_requests:
            raise


def _answers(operation: Any, messages: Sequence[Any]) -> list[Answer]:
    failed = dict(operation.metadata.failed_requests) if operation.metadata else {}
    if operation.operation.HasField("error") and not failed:
        error = operation.operation.error
        return [_error(error.code, error.message)] * len(messages)
    # The response lists only tasks that were made, in order: the refused ones leave no gap.
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


def _at_the_same_time(connection: Open, messages: Sequence[Any], until: float) -> list[Answer]:
    """Make a call for each, all under way at once; without gRPC one after the other."""
    create: Any = getattr(connection.client.transport, "create_task", None)
    if not hasattr(create, "future"):
        return [_single(connection, message, until) for message in messages]
    calls = [
        create.future(
            tasks_v2.CreateTaskRequest.wrap(message),
            timeout=max(0.001, until - monotonic()),
            # The client's method would add the routing header; its bare stub, which can begin many
            # calls at once, does not.
            metadata=(*connection.metadata, to_grpc_metadata((("parent", message.parent),))),
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


def _single(connection: Open, message: Any, until: float) -> Answer:
    left = until - monotonic()
    if left <= 0:
        return RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before its turn")
    try:
        task = connection.client.create_task(
            tasks_v2.CreateTaskRequest.wrap(message),
            retry=None,
            timeout=left,
            metadata=connection.metadata,
        )
    except api.GoogleAPICallError as exc:
        return _told(exc, message.task.name)
    return Sent(task.name)
