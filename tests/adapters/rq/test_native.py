"""RQ's own jobs, dispatched to by their import path."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from dispatchers_rq import RQDispatcher, native
from redis import Redis
from rq.job import Job
from rq.serializers import JSONSerializer

from dispatchers import override

from .harness import forget


def test_its_job_is_the_one_that_enqueue_writes(shared_redis: str) -> None:
    """Path and arguments are RQ's own, in its JSON, and nothing of ours is in the job."""
    dispatcher = RQDispatcher(url=shared_redis, queue=f"native-{uuid4().hex}")
    with override(default=dispatcher):
        response = native("shop.add", time_limit=9, expires=timedelta(minutes=5)).dispatch(1, y=2)
    client = Redis.from_url(shared_redis)
    job = Job.fetch(str(response.task_id), connection=client, serializer=JSONSerializer)
    fields, ttl = client.hkeys(job.key), client.ttl(job.key)
    forget(client, dispatcher.default_queue)
    client.close()
    dispatcher.close()

    assert response.status == "accepted"
    assert (job.func_name, job.args, job.kwargs) == ("shop.add", [1], {"y": 2})
    assert (job.timeout, job.description) == (9, "shop.add")
    assert 0 < ttl <= 300
    assert not [name for name in fields if name.startswith(b"dispatchers")]


def test_values_that_json_would_change_are_refused() -> None:
    """C1, C5: RQ's serializer would hand over another value: an answer, and nothing is sent."""
    with override(default=RQDispatcher(is_async=False)):
        response = native("shop.add").dispatch(datetime.now(UTC), 2)

    assert response.status == "rejected"
    assert response.error is not None
    assert response.error.category == "invalid"


def test_without_async_it_runs_in_the_call() -> None:
    """`is_async=False`: executed; a failing function is an answer, never an exception."""
    with override(default=RQDispatcher(is_async=False)):
        good = native(int).dispatch("5")
        bad = native("builtins.int").dispatch("five")
        unknown = native("builtins.integer").dispatch("5")

    assert good.status == "executed"
    assert bad.status == "failed"
    assert isinstance(bad.exception, ValueError)
    assert unknown.status == "rejected"


def test_a_dispatcher_that_is_not_there_is_an_answer() -> None:
    """C1: REJECTED, `configuration`."""
    with override(other=RQDispatcher(is_async=False)):
        response = native("builtins.int", dispatcher="nobody").dispatch("5")

    assert response.status == "rejected"
    assert response.error is not None
    assert response.error.category == "configuration"
