"""RQ's own jobs, dispatched to by their import path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import FunctionType
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_rq import RQDispatcher, native
from redis import Redis
from rq import Queue, Retry
from rq.decorators import job as rq_job
from rq.job import Job
from rq.serializers import JSONSerializer

from dispatchers import ConfigurationError, override

from .harness import forget


def test_its_job_is_the_one_that_enqueue_writes(shared_redis: str) -> None:
    """Path and arguments are RQ's own, in its JSON, and nothing of ours is in the job."""
    dispatcher = RQDispatcher(url=shared_redis, queue=f"native-{uuid4().hex}")
    with override(default=dispatcher):
        response = native("shop.add", time_limit=9, expires=timedelta(minutes=5)).dispatch(1, y=2)
    client = Redis.from_url(shared_redis)
    job = Job.fetch(str(response.task_id), connection=client, serializer=JSONSerializer)
    fields, ttl = client.hkeys(job.key), client.ttl(job.key)
    forget(client, dispatcher.broker.default_queue)
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


async def noted(text: str) -> None:
    await asyncio.sleep(0)
    notes.append(int(text))


notes: list[int] = []


def test_without_async_an_async_function_runs_to_its_end() -> None:
    """C3: `executed` is what has run, also where an event loop is running."""
    notes.clear()
    with override(default=RQDispatcher(is_async=False)):
        good = native(noted).dispatch("5")
        bad = native(noted).dispatch("five")
        under_loop = asyncio.run(native(noted).adispatch("6"))

    assert [good.status, bad.status, under_loop.status] == ["executed", "failed", "executed"]
    assert notes == [5, 6]


def test_a_dispatcher_that_is_not_there_is_an_answer() -> None:
    """C1: REJECTED, `configuration`."""
    with override(other=RQDispatcher(is_async=False)):
        response = native("builtins.int", dispatcher="nobody").dispatch("5")

    assert response.status == "rejected"
    assert response.error is not None
    assert response.error.category == "configuration"


def nowhere(x: int) -> int:
    """A function that RQ runs already."""
    return x


@pytest.fixture
def ours(shared_redis: str) -> Iterator[RQDispatcher]:
    dispatcher = RQDispatcher(url=shared_redis, queue=f"native-{uuid4().hex}", queues=["routed"])
    with override(default=dispatcher):
        yield dispatcher
    forget(dispatcher.broker.client, *dispatcher.broker.declared)
    dispatcher.close()


def decorated(ours: RQDispatcher, *, by_name: bool = False, **options: Any) -> Any:
    """The function with RQ's decorator; a queue by name or as an object."""
    connection = Redis.from_url(str(ours.options.url))
    queue = "routed" if by_name else Queue("routed", connection=connection)
    wrapped = FunctionType(nowhere.__code__, globals(), "nowhere")
    return rq_job(queue, connection=connection, **options)(wrapped)


@pytest.mark.parametrize("by_name", [True, False])
def test_rqs_decorator_routes_its_function(ours: RQDispatcher, by_name: bool) -> None:
    """Queue, timeout and time to live are those that `enqueue` of the function would take."""
    function = decorated(ours, by_name=by_name, timeout=9, ttl=300)

    routed = native(function).dispatch(1).raise_for_error()
    given = native(function, queue=ours.options.queue, time_limit=3).dispatch(1).raise_for_error()
    jobs = [job_of(ours, routed.task_id), job_of(ours, given.task_id)]

    assert [(job.origin, job.timeout) for job in jobs] == [
        ("routed", 9),
        (ours.options.queue, 3),
    ]
    assert jobs[0].ttl == pytest.approx(300, abs=5)


def test_an_option_of_the_decorator_that_would_be_lost_is_refused(ours: RQDispatcher) -> None:
    """C6: never silently dropped."""
    function = decorated(ours, retry=Retry(max=3))

    with pytest.raises(ConfigurationError, match="its @job has retry"):
        native(function)


def job_of(dispatcher: RQDispatcher, number: str | None) -> Job:
    client = Redis.from_url(str(dispatcher.options.url))
    return Job.fetch(str(number), connection=client, serializer=JSONSerializer)
