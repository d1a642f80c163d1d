"""Dispatching to Cloud Tasks, over the raw client, on the same stand-in and in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from dispatchers_cloud_tasks import CloudTasksDispatcher  # before gRPC, see its `__init__`

import grpc  # isort: skip
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from ._measure import Figure, interleaved, ratio
from .tasks import small

MANY = 100
PLACE = "DISPATCHERS_TARGETS__DEV__DEFAULT__"


def single_and_many() -> Iterator[Figure]:
    """The stand-in in a process of its own, its queue paused: nothing is delivered meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["port=0", "http_port=0", "--json", "--dir", folder]
        command = [sys.executable, "-m", "dispatchers", "dev", "cloud_tasks", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            text = "".join(iter(process.stdout.readline, "}\n")) + "}"
            found = json.loads(text)["every process"]
            yield from _figures({k.removeprefix(PLACE).lower(): v for k, v in found.items()})
            process.terminate()


def _figures(found: dict[str, str]) -> Iterator[Figure]:
    names = ("project", "location", "queue", "worker_url", "service_account", "endpoint")
    settings: dict[str, Any] = {name: found[name] for name in names}
    channel = grpc.insecure_channel(settings["endpoint"])
    client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
    parent = client.queue_path(settings["project"], settings["location"], settings["queue"])
    client.pause_queue(name=parent)
    dispatcher = CloudTasksDispatcher(**settings, deadline=30.0)
    bound = small.options(dispatcher=dispatcher)

    def raw() -> None:
        """What the client's documentation shows."""
        task = tasks_v2.Task(
            http_request=tasks_v2.HttpRequest(
                http_method=tasks_v2.HttpMethod.POST,
                url=f"{settings['worker_url']}/work",
                headers={"Content-Type": "application/json"},
                body=json.dumps({"number": 1, "text": "abc"}).encode(),
                oidc_token=tasks_v2.OidcToken(
                    service_account_email=settings["service_account"],
                    audience=settings["worker_url"],
                ),
            )
        )
        client.create_task(tasks_v2.CreateTaskRequest(parent=parent, task=task))

    def batch() -> None:
        added = bound.batch()
        for number in range(MANY):
            added.add(number=number, text="abc")
        added.dispatch().raise_for_error()

    # Apart from each other: whatever follows two thousand tasks at once finds a busy stand-in.
    ours, theirs = interleaved(
        lambda: bound.dispatch(number=1, text="abc"), raw, rounds=60, each=20
    )
    ours_many, single = interleaved(batch, raw, rounds=10, each=10)
    dispatcher.close()
    channel.close()
    yield ratio("cloud_tasks: a dispatch over the raw client's", 1.05, ours, theirs)
    yield ratio(
        "cloud_tasks: `dispatch_many` of 100, each, over the raw client's",
        0.25,
        ours_many / MANY,
        single,
    )
