"""Many at once: the batch call, what of it fails, and a service without it."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from dispatchers_cloud_tasks import CloudTasksDispatcher
from dispatchers_cloud_tasks._batch import send_many
from dispatchers_cloud_tasks.standin import StandIn
from google.api_core import exceptions as api

from dispatchers import DispatchStatus, ErrorCategory
from dispatchers.testing import tasks

from .test_errors import dispatcher_for


@pytest.fixture
def dispatcher(standin: StandIn, client: Any) -> Any:
    client.pause_queue(name=standin.queue_name("default"))
    found = dispatcher_for(standin)
    yield found
    found.close()


def counted(dispatcher: CloudTasksDispatcher) -> list[int]:
    """The sizes of the batch calls that are made from now on."""
    dispatcher.check(contact=True)
    client: Any = dispatcher.broker.connection(5.0).client
    real, sizes = client.batch_create_tasks, []

    def call(request: Any, **more: Any) -> Any:
        sizes.append(len(request.requests))
        return real(request, **more)

    client.batch_create_tasks = call
    return sizes


def test_a_batch_is_one_call_for_a_hundred(
    standin: StandIn, dispatcher: CloudTasksDispatcher
) -> None:
    sizes = counted(dispatcher)
    requests = [tasks.note.request("/x", str(n)) for n in range(250)]

    answers = dispatcher.dispatch_many(requests)

    assert answers.ok
    assert sorted(sizes) == [50, 100, 100]
    held = [task.name for task in standin.tasks("default")]
    assert [answer.task_id for answer in answers] == held


def test_large_tasks_are_spread_over_calls(
    standin: StandIn, dispatcher: CloudTasksDispatcher
) -> None:
    """A call stays below what gRPC's servers take."""
    sizes = counted(dispatcher)
    requests = [tasks.note.request("/x", "x" * 900_000) for _ in range(8)]

    answers = dispatcher.dispatch_many(requests)

    assert answers.ok
    assert sizes == [3, 3, 2]


def test_each_failure_is_told(standin: StandIn, dispatcher: CloudTasksDispatcher) -> None:
    """C3: what was known, what was refused and what was taken, in order."""
    known = tasks.note.options(idempotency_key="known").request("/x")
    dispatcher.dispatch(known)
    bad = tasks.note.request("/x").replace(queue="no_underscores")
    other = tasks.note.request("/x").replace(queue="nowhere")

    answers = dispatcher.dispatch_many([tasks.note.request("/x"), known, bad, other])

    categories = [answer.error and answer.error.category for answer in answers]
    assert [answer.status for answer in answers] == [
        "accepted", "duplicate", "rejected", "rejected",
    ]  # fmt: skip
    assert categories == [None, None, ErrorCategory.NOT_FOUND, ErrorCategory.NOT_FOUND]


def test_a_failure_within_a_batch_is_its_own(
    standin: StandIn, dispatcher: CloudTasksDispatcher
) -> None:
    """The service refuses one of three by its index."""
    far = dispatcher.messages.message(tasks.note.request("/x"), b"{}", "default")
    far.task.schedule_time.FromSeconds(4_000_000_000)
    good = [
        dispatcher.messages.message(tasks.note.request("/x"), b"{}", "default") for _ in range(2)
    ]
    link = dispatcher.broker.connection(5.0)
    with link.ready(5.0):
        answers: list[Any] = send_many(link, [good[0], far, good[1]], monotonic() + 5.0)

    assert isinstance(answers[1], api.InvalidArgument)
    assert [answers[0].task_id, answers[2].task_id] == [good[0].task.name, good[1].task.name]


def test_a_service_without_batches_gets_single_calls(
    standin: StandIn, dispatcher: CloudTasksDispatcher
) -> None:
    """As many at once as there are; a duplicate among them is told."""
    standin.misbehave(refuse_batches=True)
    known = tasks.note.options(idempotency_key="known").request("/x")
    requests = [known, *(tasks.note.request("/x") for _ in range(20)), known]

    answers = dispatcher.dispatch_many(requests)

    assert sorted(answer.status for answer in answers) == ["accepted"] * 21 + ["duplicate"]
    assert len(standin.tasks("default")) == 21


def test_single_calls_are_under_way_at_the_same_time(
    standin: StandIn, dispatcher: CloudTasksDispatcher
) -> None:
    """Ten calls of a service that takes its time end within a deadline for a few of them."""
    standin.misbehave(refuse_batches=True, answer_delay=0.5)
    requests = [tasks.note.options(deadline=4.0).request("/x") for _ in range(10)]

    answers = dispatcher.dispatch_many(requests)

    assert answers.ok


def test_a_lost_batch_is_unknown(standin: StandIn, dispatcher: CloudTasksDispatcher) -> None:
    """C3: repeating the same requests tells which had arrived: all of them."""
    dispatcher.check(contact=True)
    standin.misbehave(lose_reply=1)
    requests = [tasks.note.options(deadline=0.5).request("/x") for _ in range(3)]

    lost = dispatcher.dispatch_many(requests)
    again = dispatcher.dispatch_many([each.replace(deadline=None) for each in requests])

    assert {each.status for each in lost} == {DispatchStatus.UNKNOWN}
    assert {each.status for each in again} == {DispatchStatus.DUPLICATE}
