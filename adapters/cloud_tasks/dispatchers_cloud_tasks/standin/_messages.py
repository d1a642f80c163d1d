"""The protocol's messages, as the client's own library defines them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.cloud import tasks_v2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, duration_pb2, empty_pb2, timestamp_pb2
from google.rpc import status_pb2

__all__ = [
    "BatchCreated",
    "BatchMetadata",
    "Duration",
    "Operation",
    "Queue",
    "Status",
    "Task",
    "packed",
    "seconds_of",
    "since_epoch",
    "timestamp",
]

Task: Any = tasks_v2.Task.pb()
Queue: Any = tasks_v2.Queue.pb()
BatchCreated: Any = tasks_v2.BatchCreateTasksResponse.pb()
BatchMetadata: Any = tasks_v2.BatchCreateTasksMetadata.pb()
Operation: Any = operations_pb2.Operation
Status: Any = status_pb2.Status
Duration: Any = duration_pb2.Duration
Empty: Any = empty_pb2.Empty


def timestamp(seconds: float) -> Any:
    """Seconds since the epoch as a message, to the microsecond."""
    found: Any = timestamp_pb2.Timestamp()
    found.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return found


def since_epoch(message: Any) -> float:
    """A timestamp as seconds since the epoch."""
    return float(message.seconds + message.nanos / 1e9)


def seconds_of(message: Any) -> float:
    """A duration as seconds."""
    return float(message.seconds + message.nanos / 1e9)


def packed(message: Any) -> Any:
    """A message in an `Any`."""
    found: Any = any_pb2.Any()
    found.Pack(message)
    return found
