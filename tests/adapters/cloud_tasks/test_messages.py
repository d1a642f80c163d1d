"""What becomes of options and requests: the tasks that the service gets."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dispatchers_cloud_tasks import CloudTasksDispatcher
from dispatchers_cloud_tasks.standin import StandIn
from google.cloud import tasks_v2

from dispatchers import (
    Backoff,
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    WorkerOptions,
    catalogue,
    get_dispatcher,
    task,
)
from dispatchers._config import api as _instances
from dispatchers.http import PATH
from dispatchers.testing import tasks

from .test_errors import dispatcher_for

LIMIT = 1024 * 1024


def sent(standin: StandIn, request: DispatchRequest, **options: Any) -> Any:
    """The task that the queue holds for a request."""
    dispatcher = dispatcher_for(standin, worker_url="https://worker.example", **options)
    dispatcher.dispatch(request).raise_for_error()
    dispatcher.close()
    (found,) = standin.tasks("default")
    return tasks_v2.Task.wrap(found)


@pytest.fixture
def paused(standin: StandIn, client: Any) -> StandIn:
    client.pause_queue(name=standin.queue_name("default"))
    return standin


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_slashes_do_not_double(paused: StandIn, slashes: str) -> None:
    dispatcher = dispatcher_for(paused, worker_url=f"https://worker.example{slashes}")
    dispatcher.dispatch(tasks.note.request("/x")).raise_for_error()
    dispatcher.close()

    assert paused.tasks("default")[0].http_request.url == f"https://worker.example{PATH}"


def test_the_envelope_is_the_body(paused: StandIn) -> None:
    """C5: as it is, with its type, and with a token for the worker."""
    found = sent(paused, tasks.note.request("/x"), audience="https://audience.example")

    request = found.http_request
    assert DispatchRequest.model_validate_json(request.body).task == "dispatchers.testing.note"
    assert request.http_method == tasks_v2.HttpMethod.POST
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Dispatchers-Task"] == "dispatchers.testing.note"
    assert request.oidc_token.service_account_email == "a@example.org"
    assert request.oidc_token.audience == "https://audience.example"


def test_a_secret_stands_in_for_a_token(paused: StandIn) -> None:
    """A worker outside Google may know a shared secret only."""
    found = sent(paused, tasks.note.request("/x"), service_account=False, secret="s" * 20)

    assert found.http_request.headers["Authorization"] == f"Bearer {'s' * 20}"
    assert "oidc_token" not in found.http_request


def test_trace_context_travels_as_headers(paused: StandIn) -> None:
    """What could break a header, or speak for us, stays in the envelope."""
    headers = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "Tracestate": "a=b",
        "baggage": "bad\r\nvalue",
        "authorization": "Bearer mine",
    }

    found = sent(paused, tasks.note.options(headers=headers).request("/x"))

    carried = dict(found.http_request.headers)
    assert carried["traceparent"] == headers["traceparent"]
    assert carried["tracestate"] == "a=b"
    assert "baggage" not in carried
    assert "authorization" not in {name.lower() for name in carried}


def test_work_is_known_by_a_hash_of_its_task_and_key(paused: StandIn) -> None:
    request = tasks.note.options(idempotency_key="k").request("/x")

    found = sent(paused, request)

    wanted = hashlib.sha256(b"dispatchers.testing.note\0k").hexdigest()
    assert found.name == f"{paused.queue_name('default')}/tasks/{wanted}"


def test_names_can_be_left_to_what_has_a_key(paused: StandIn) -> None:
    """A name costs the service a lookup: `names = "keyed"` saves it."""
    dispatcher = dispatcher_for(paused, names="keyed")
    plain = tasks.note.request("/x")
    keyed = tasks.note.options(idempotency_key="k").request("/x")
    demanded = tasks.note.options(deduplicate=True).request("/x")

    once, twice = ([dispatcher.dispatch(r) for r in (plain, keyed, demanded)] for _ in range(2))
    many = dispatcher.dispatch_many([tasks.note.request("/x"), keyed, tasks.note.request("/x")])
    dispatcher.close()

    assert [each.status for each in once] == ["accepted"] * 3
    assert [each.status for each in twice] == ["accepted", "duplicate", "duplicate"]
    assert [each.status for each in many] == ["accepted", "duplicate", "accepted"]
    held = [task.name for task in paused.tasks("default")]
    assert {each.task_id for each in many} <= set(held)
    assert len({each.task_id for each in many}) == 3


def test_delay_and_eta_are_the_schedule_time(paused: StandIn) -> None:
    """C6: an instant in any time zone, up to 30 days ahead."""
    eta = datetime.now(UTC).astimezone() + timedelta(days=29)

    found = sent(paused, tasks.note.options(eta=eta).request("/x"))

    assert abs(found.schedule_time.timestamp() - eta.timestamp()) < 1e-5


def test_attempts_and_back_off_are_the_tasks_own(paused: StandIn) -> None:
    """The queue tries at least so often and for so long: an unreachable worker uses up attempts."""
    waits = Backoff(initial=10, factor=2, maximum=300)

    found = sent(paused, tasks.note.options(max_attempts=5, backoff=waits).request("/x"))

    config = found.retry_config
    assert config.max_attempts == 5
    assert config.max_retry_duration == timedelta(days=30)
    assert (config.min_backoff, config.max_backoff) == (timedelta(seconds=10), timedelta(minutes=5))
    assert config.max_doublings == 5


def test_a_back_off_is_rounded_up_to_seconds(paused: StandIn) -> None:
    """The service truncates to the second: 0.4 s would be none."""
    waits = Backoff(initial=0.4, factor=1, maximum=0.4)

    found = sent(paused, tasks.note.options(backoff=waits).request("/x"))

    config = found.retry_config
    assert (config.min_backoff, config.max_backoff) == (timedelta(seconds=1), timedelta(seconds=1))
    assert (config.max_attempts, config.max_doublings) == (-1, 0)


def test_without_either_the_queue_decides(paused: StandIn) -> None:
    assert "retry_config" not in sent(paused, tasks.note.request("/x"))


@pytest.mark.parametrize(
    ("limit", "deadline"), [(None, 60.0), (30.0, 60.0), (100.0, 105.0), (1798.0, 1800.0)]
)
def test_a_time_limit_extends_the_delivery(
    paused: StandIn, limit: float | None, deadline: float
) -> None:
    found = sent(paused, tasks.note.options(time_limit=limit).request("/x"), dispatch_deadline=60.0)

    assert found.dispatch_deadline.total_seconds() == deadline


def test_the_size_limit_is_exact(paused: StandIn) -> None:
    """C6: one byte more than the service takes is refused before contact, alone and in a batch."""
    dispatcher = dispatcher_for(paused)
    spare = LIMIT - _size(paused, dispatcher, tasks.note.request("/x", "x" * 900_000))
    fits = tasks.note.request("/x", "x" * (900_000 + spare))
    over = tasks.note.request("/x", "x" * (900_001 + spare))

    taken, refused = dispatcher.dispatch(fits), dispatcher.dispatch(over)
    batch = dispatcher.dispatch_many([over, tasks.note.request("/x")])
    dispatcher.close()

    assert taken.ok
    for each in (refused, batch[0]):
        assert each.status is DispatchStatus.REJECTED
        assert each.error is not None
        assert each.error.category is ErrorCategory.TOO_LARGE
    assert batch[1].ok


def _size(standin: StandIn, dispatcher: CloudTasksDispatcher, request: DispatchRequest) -> int:
    from dispatchers._models.envelope import encode

    message = dispatcher.messages.message(request, encode(request), "default")
    return int(message.task.ByteSize())


# Options.


def test_every_missing_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: to who builds it, to who starts it, and to who dispatches."""
    wanted = ("project", "location", "queue", "worker_url", "service_account")
    monkeypatch.setenv("DISPATCHERS_TARGET", "gcp")
    monkeypatch.setenv("DISPATCHERS_TARGETS__GCP__DEFAULT__BACKEND", "cloud_tasks")
    _instances.reload()

    with pytest.raises(ConfigurationError) as built:
        CloudTasksDispatcher()
    with pytest.raises(ConfigurationError) as looked_up:
        get_dispatcher()
    response = tasks.note.dispatch("/x")
    monkeypatch.undo()
    _instances.reload()

    assert response.error is not None
    assert response.error.category is ErrorCategory.CONFIGURATION
    for text in (str(built.value), str(looked_up.value), response.error.message):
        lines = [line for line in re.split(r"[;\n]", text) if "is missing" in line]
        assert [name for name in wanted if not any(name in line for line in lines)] == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dispatch_deadline", 14.9),
        ("dispatch_deadline", 1800.1),
        ("worker_url", "worker.example"),
        ("service_account", True),
        ("endpoint", "http://127.0.0.1:1"),
        ("path", "run"),
        ("names", "never"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    standin: StandIn, option: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"option '{option}"):
        dispatcher_for(standin, **{option: value})


def test_nothing_is_contacted_by_the_constructor() -> None:
    """C12: with nobody there it is built, and checked, all the same."""
    dispatcher = CloudTasksDispatcher(
        project="p",
        location="l",
        queue="q",
        worker_url="https://w",
        service_account="a@b",
        endpoint="127.0.0.1:9",
    )

    dispatcher.check()
    with pytest.raises(ConfigurationError, match="could not be reached"):
        dispatcher.check(contact=True)
    dispatcher.close()


def test_the_check_reaches_the_queue(standin: StandIn) -> None:
    good, bad = dispatcher_for(standin), dispatcher_for(standin, queue="nowhere")

    good.check(contact=True)
    with pytest.raises(ConfigurationError, match="NotFound"):
        bad.check(contact=True)
    good.close()
    bad.close()


def test_a_time_limit_beyond_a_delivery_fails_the_check(standin: StandIn) -> None:
    """C10: the queue would deliver it again while it runs."""

    @task(name="tests.cloud_tasks.long", time_limit=1801)
    def long() -> None: ...

    dispatcher = dispatcher_for(standin)
    try:
        with pytest.raises(ConfigurationError, match="may run for 1801"):
            dispatcher.check()
    finally:
        catalogue.remove(long)


def test_its_worker_is_a_web_server(standin: StandIn) -> None:
    with pytest.raises(ConfigurationError, match=r"serve dispatchers\.http"):
        dispatcher_for(standin)._worker(WorkerOptions())


def test_secrets_are_never_shown(standin: StandIn) -> None:
    """C4: neither the worker's secret nor the stand-in's token."""
    dispatcher = dispatcher_for(standin, secret="the-secret-one", token="the-token-two")

    shown = repr(dispatcher.options) + repr(dispatcher) + str(dispatcher.options)
    dispatcher.close()

    assert "the-secret-one" not in shown
    assert "the-token-two" not in shown
