"""Dispatching to SQS, over the raw client, to a server that only answers, in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import boto3
from dispatchers_sqs import SQSDispatcher

from ._measure import Figure, interleaved, ratio
from .tasks import small

MANY = 100
REGION = "eu-west-1"


def many() -> Iterator[Figure]:
    """The server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks._sqs_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield from _figures(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def _figures(url: str) -> Iterator[Figure]:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "nobody")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "nothing")
    client = boto3.client("sqs", endpoint_url=url, region_name=REGION)
    queue = client.get_queue_url(QueueName="bench")["QueueUrl"]
    dispatcher = SQSDispatcher(queue="bench", endpoint=url, region=REGION, deadline=30.0)
    bound = small.options(dispatcher=dispatcher)

    def raw() -> None:
        """What the client's documentation shows."""
        client.send_message(QueueUrl=queue, MessageBody=json.dumps({"number": 1, "text": "abc"}))

    def batch() -> None:
        added = bound.batch()
        for number in range(MANY):
            added.add(number=number, text="abc")
        added.dispatch().raise_for_error()

    ours, theirs = interleaved(batch, lambda: [raw() for _ in range(MANY)], rounds=10, each=1)
    dispatcher.close()
    client.close()
    yield ratio("sqs: `dispatch_many` of 100 over a loop of `send_message`", 0.20, ours, theirs)
