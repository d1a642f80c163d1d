"""Dispatching to django-rq's queue, over its own `enqueue`, on the same Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import django
from django.conf import settings

from dispatchers.testing.servers import RedisServer

from ._measure import Figure, interleaved, ratio
from .tasks import small


def single() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        ours, theirs = _measured(server.url)
    yield ratio("django_rq: a dispatch over `get_queue().enqueue`", 0.90, ours, theirs)


def _measured(url: str) -> list[float]:
    """Seconds of a dispatch, and of `enqueue` on a queue that is kept."""
    queue = f"bench-{uuid4().hex}"
    if not settings.configured:
        settings.configure()
        django.setup()
    settings.RQ_QUEUES = {queue: {"URL": url, "DB": None}}
    settings.RQ = {"COMMIT_MODE": "auto"}
    from dispatchers_django_rq import DjangoRQDispatcher
    from django_rq import get_queue

    raw: Any = get_queue(queue)
    dispatcher = DjangoRQDispatcher(queue=queue, deadline=30.0)
    bound = small.options(dispatcher=dispatcher)
    found = interleaved(
        lambda: bound.dispatch(number=1, text="abc"),
        lambda: raw.enqueue("benchmarks._rq_worker.bare", 1, "abc"),
        rounds=30,
        each=20,
    )
    dispatcher.close()
    return found
