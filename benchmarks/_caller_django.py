"""Callers whose settings are Django's, and the official client of SQS, for `_caller`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Call = Callable[[], object]
REGION = "eu-west-1"


def set_up(url: str, queue: str) -> None:
    """Set Django up in this process: each package on the same Redis and queue."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DISPATCHERS={"default": {"BACKEND": "inline"}},
        INSTALLED_APPS=["dispatchers_django", "django_q", "django_tasks", "django_rq"],
        LOGGING_CONFIG=None,
        Q_CLUSTER={"name": queue, "redis": url, "timeout": 30, "retry": 60, "log_level": "ERROR"},
        RQ={"JOB_CLASS": "django_tasks_rq.Job"},
        RQ_QUEUES={name: {"URL": url, "DB": None} for name in (queue, "default")},
        SECRET_KEY="of this table",
        TASKS={"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": [queue, "default"]}},
        USE_TZ=True,
    )
    django.setup()


def django_q(url: str, queue: str) -> Call:
    set_up(url, queue)
    from django_q.tasks import async_task

    return lambda: async_task("builtins.print")


def django_rq(url: str, queue: str) -> Call:
    set_up(url, queue)
    from django_rq import get_queue

    place: Any = get_queue(queue)
    return lambda: place.enqueue("builtins.print")


def django_tasks(url: str, queue: str) -> Call:
    set_up(url, queue)
    from ._django_faults_work import nothing

    return lambda: nothing.using(queue_name=queue).enqueue()


def sqs(url: str, queue: str) -> Call:
    import boto3

    client: Any = boto3.client("sqs", endpoint_url=url, region_name=REGION)
    place = f"{url}/123456789012/{queue}"
    return lambda: client.send_message(QueueUrl=place, MessageBody="{}")


def options_of_ours(backend: str, url: str, queue: str) -> dict[str, Any]:
    """The options of a dispatcher, with Django set up where they stand in its settings."""
    if backend == "sqs":
        return {"endpoint": url, "region": REGION, "queue": queue}
    if backend.startswith("django"):
        set_up(url, queue)
        return {"queue": queue}
    return {"url": url, "queue": queue}


def credentials() -> None:
    """Have what the official client wants, for a server that asks for none."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "of-this-table"}
