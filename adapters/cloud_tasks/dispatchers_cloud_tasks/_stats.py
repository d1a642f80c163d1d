"""Figures of queues, as the service estimates them: only its version v2beta3 tells any."""

from __future__ import annotations

import time
from collections.abc import Mapping
from time import monotonic
from typing import Any

from dispatchers import DeadLetterStore, Stats, queue_stats
from dispatchers.stores import count_dead

from ._connection import Connection, OwnClient


def figures(
    connection: Connection | OwnClient,
    names: Mapping[str, str],
    timeout: float,
    letters: DeadLetterStore | None,
) -> list[Stats]:
    """Return the figures of each queue; what waits and what is delayed is one estimate.

    Args:
        connection: A connection that is ready.

        names: The full names of the queues by their short ones.

        timeout: Seconds for all of it.

        letters: The store that counts dead letters.
    """
    until = monotonic() + timeout
    ask = _client(connection).get_queue
    mask = {"paths": ["stats"]}
    found = {
        queue: ask(
            {"name": name, "read_mask": mask},
            retry=None,
            timeout=max(0.001, until - monotonic()),
            metadata=connection.metadata,
        ).stats
        for queue, name in names.items()
    }
    return queue_stats(
        waiting={queue: _waiting(each) for queue, each in found.items()},
        running={queue: each.concurrent_dispatches_count for queue, each in found.items()},
        oldest={queue: _age(each) for queue, each in found.items()},
        dead=count_dead(letters),
        queues=names,
    )


def _client(connection: Connection | OwnClient) -> Any:
    """Return a client of v2beta3 on the same channel."""
    # Imported late: a process that only dispatches needs one version of the protocol.
    from google.cloud import tasks_v2beta3
    from google.cloud.tasks_v2beta3.services.cloud_tasks.transports import CloudTasksGrpcTransport

    if connection.channel is None:
        raise NotImplementedError("a client of your own tells no figures")
    transport = CloudTasksGrpcTransport(channel=connection.channel)
    return tasks_v2beta3.CloudTasksClient(transport=transport)


def _waiting(stats: Any) -> int:
    """Return the tasks that are not being delivered: the service's count includes those."""
    return max(0, int(stats.tasks_count) - int(stats.concurrent_dispatches_count))


def _age(stats: Any) -> float:
    """Return the seconds since the oldest task arrived."""
    arrived = stats.oldest_estimated_arrival_time
    return max(0.0, time.time() - arrived.timestamp()) if arrived else 0.0
