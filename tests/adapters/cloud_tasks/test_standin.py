"""The stand-in does what the service's documentation promises, to the unmodified client."""

from __future__ import annotations

import json
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from dispatchers_cloud_tasks.standin import Misbehaviour, StandIn
from google.api_core import exceptions as api
from google.cloud import tasks_v2
from google.protobuf import duration_pb2, timestamp_pb2
from pydantic import ValidationError

from .harness import free_port, official_client
from .web import Web, eventually


def task_for(url: str, **more: Any) -> tasks_v2.Task:
    return tasks_v2.Task(http_request={"url": url, "body": b"x", **more.pop("http", {})}, **more)


def seconds(value: float) -> duration_pb2.Duration:
    found = duration_pb2.Duration()
    found.FromMilliseconds(round(value * 1000))
    return found


def at(when: datetime) -> timestamp_pb2.Timestamp:
    found = timestamp_pb2.Timestamp()
    found.FromDatetime(when)
    return found


@pytest.fixture
def create(standin: StandIn, client: Any, web: Web) -> Callable[..., Any]:
    """Create a task in `default`, for the web server unless told otherwise."""

    def call(**more: Any) -> Any:
        url = more.pop("url", f"{web.url}/work?x=1")
        return client.create_task(
            parent=standin.queue_name("default"), task=task_for(url, **more), retry=None
        )

    return call


def test_a_task_is_pushed_once_and_forgotten(
    standin: StandIn, web: Web, create: Callable[..., Any]
) -> None:
    create(http={"headers": {"Content-Type": "text/plain", "X-Mine": "1"}})

    assert eventually(lambda: not standin.tasks("default"))
    (asked,) = web.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/work?x=1", b"x")
    assert asked.headers["X-Mine"] == "1"
    assert asked.headers["Content-Type"] == "text/plain"
    assert asked.headers["User-Agent"] == "Google-Cloud-Tasks"


def test_headers_of_the_service_are_its_own(web: Web, create: Callable[..., Any]) -> None:
    """Host, length, agent and what is reserved are dropped: `HttpRequest.headers`."""
    spoofed = {
        "User-Agent": "me",
        "Host": "elsewhere",
        "X-Google-Thing": "1",
        "X-AppEngine-Thing": "1",
        "X-CloudTasks-TaskRetryCount": "7",
    }

    create(http={"headers": spoofed})

    assert eventually(lambda: web.asked)
    headers = web.asked[0].headers
    assert headers["User-Agent"] == "Google-Cloud-Tasks"
    assert headers["Host"] == web.url.removeprefix("http://")
    assert headers["X-CloudTasks-TaskRetryCount"] == "0"
    assert not [name for name in headers if name.lower().startswith(("x-google", "x-appengine"))]


def test_every_non_2xx_is_tried_again_and_counted(web: Web, create: Callable[..., Any]) -> None:
    """The execution count leaves 5xx out, the retry count does not."""
    web.answers = [500, 404, 503, 302, 200]
    made = create()

    assert eventually(lambda: len(web.asked) == 5)
    said = [asked.headers for asked in web.asked]
    assert [h["X-CloudTasks-TaskRetryCount"] for h in said] == ["0", "1", "2", "3", "4"]
    assert [h["X-CloudTasks-TaskExecutionCount"] for h in said] == ["0", "0", "1", "1", "2"]
    assert [h.get("X-CloudTasks-TaskPreviousResponse") for h in said] == [
        None, "500", "404", "503", "302",
    ]  # fmt: skip
    assert "X-CloudTasks-TaskRetryReason" not in said[0]
    assert said[1]["X-CloudTasks-TaskRetryReason"]
    assert {h["X-CloudTasks-QueueName"] for h in said} == {"default"}
    assert {h["X-CloudTasks-TaskName"] for h in said} == {made.name.rpartition("/")[2]}
    assert all(abs(float(h["X-CloudTasks-TaskETA"]) - time.time()) < 60 for h in said)


def test_the_wait_between_attempts_doubles(web: Web, create: Callable[..., Any]) -> None:
    """By the queue's configuration: 0.05, 0.1, 0.2 s here."""
    web.answers = [500, 500, 500]
    create()

    assert eventually(lambda: len(web.asked) == 4)
    times = [asked.at for asked in web.asked]
    gaps = [after - before for before, after in pairwise(times)]
    assert all(gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2), strict=True))


def test_a_tasks_own_retry_configuration_rules(
    standin: StandIn, web: Web, create: Callable[..., Any]
) -> None:
    """Its attempts and its back-off beat the queue's; then the task is gone."""
    web.answers = [500] * 9
    create(
        retry_config={
            "max_attempts": 3,
            "min_backoff": seconds(0.01),
            "max_backoff": seconds(0.01),
        }
    )

    assert eventually(lambda: not standin.tasks("default"))
    assert len(web.asked) == 3


def test_attempts_do_not_end_before_the_duration(
    standin: StandIn, web: Web, create: Callable[..., Any]
) -> None:
    """Both have to be used up: `RetryConfig.max_attempts`."""
    web.answers = [500] * 4
    create(
        retry_config={
            "max_attempts": 1,
            "max_retry_duration": seconds(60),
            "min_backoff": seconds(0.01),
            "max_backoff": seconds(0.01),
        }
    )

    assert eventually(lambda: len(web.asked) == 5)
    assert eventually(lambda: not standin.tasks("default"))


def test_retry_after_is_honoured(web: Web, create: Callable[..., Any]) -> None:
    web.answers = [(503, {"Retry-After": "1"}), (429, {"Retry-After": "nonsense"}), 200]
    create()

    assert eventually(lambda: len(web.asked) == 3)
    assert web.asked[1].at - web.asked[0].at >= 0.99


def test_a_task_waits_for_its_time(web: Web, create: Callable[..., Any]) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.7)

    create(schedule_time=at(due))

    assert eventually(lambda: web.asked)
    assert web.asked[0].at >= due.timestamp() - 0.001


def test_a_delivery_has_ten_minutes_by_default(create: Any) -> None:
    """`Task.dispatch_deadline`."""
    assert create().dispatch_deadline == timedelta(minutes=10)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dispatch_deadline": seconds(14)}, "dispatchDeadline"),
        ({"dispatch_deadline": seconds(1801)}, "dispatchDeadline"),
        ({"schedule_time": at(datetime.now(UTC) + timedelta(days=31))}, "30 days"),
        ({"http": {"body": b"x" * 1024 * 1024}}, "too large"),
        ({"http": {"http_method": "GET"}}, "body"),
        ({"http": {"headers": {"X": "y" * 80 * 1024}}}, "80KB"),
        ({"http": {"oidc_token": {"audience": "x"}}}, "service_account"),
        ({"url": "ftp://x"}, "http"),
        ({"url": "http://x/" + "y" * 2083}, "2083"),
        ({"name": "projects/p/locations/l/queues/other/tasks/t"}, "name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_service_refuses_is_refused(
    standin: StandIn, create: Any, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(api.InvalidArgument, match=said):
        create(**wrong)
    assert standin.tasks("default") == []


def test_a_name_is_taken_while_the_task_is_there_and_after(
    standin: StandIn, web: Web, create: Any, client: Any
) -> None:
    """Named tasks are recognised, also once they are done or deleted."""
    name = f"{standin.queue_name('default')}/tasks/once"
    client.pause_queue(name=standin.queue_name("default"))
    create(name=name)

    with pytest.raises(api.AlreadyExists):
        create(name=name)
    client.delete_task(name=name)
    with pytest.raises(api.AlreadyExists):
        create(name=name)
    with pytest.raises(api.NotFound):
        client.delete_task(name=name)


def test_tasks_are_listed_in_pages(standin: StandIn, create: Any, client: Any) -> None:
    parent = standin.queue_name("default")
    client.pause_queue(name=parent)
    made = [create().name for _ in range(5)]

    pages = list(client.list_tasks(request={"parent": parent, "page_size": 2}).pages)

    assert [task.name for page in pages for task in page.tasks] == made
    assert [len(page.tasks) for page in pages] == [2, 2, 1]


def test_the_body_is_shown_on_request_only(standin: StandIn, create: Any, client: Any) -> None:
    client.pause_queue(name=standin.queue_name("default"))
    name = create().name

    basic = client.get_task(name=name)
    full = client.get_task(request={"name": name, "response_view": tasks_v2.Task.View.FULL})

    assert (basic.http_request.body, full.http_request.body) == (b"", b"x")


def test_a_paused_queue_keeps_its_tasks_until_it_is_resumed(
    standin: StandIn, web: Web, create: Any, client: Any
) -> None:
    queue = standin.queue_name("default")
    client.pause_queue(name=queue)
    first, second = create(), create()

    client.run_task(name=second.name)  # whatever the queue's state
    assert eventually(lambda: len(standin.tasks("default")) == 1)
    assert [task.name for task in standin.tasks("default")] == [first.name]
    assert client.get_queue(name=queue).state == tasks_v2.Queue.State.PAUSED
    client.resume_queue(name=queue)

    assert eventually(lambda: not standin.tasks("default"))


def test_a_task_can_be_run_before_its_time(web: Web, create: Any, client: Any) -> None:
    made = create(schedule_time=at(datetime.now(UTC) + timedelta(hours=1)))

    client.run_task(name=made.name)

    assert eventually(lambda: web.asked)


def test_a_queue_is_purged_and_deleted(standin: StandIn, create: Any, client: Any) -> None:
    queue = standin.queue_name("default")
    client.pause_queue(name=queue)
    create()

    client.purge_queue(name=queue)
    assert standin.tasks("default") == []
    client.delete_queue(name=queue)
    with pytest.raises(api.NotFound, match="Queue does not exist"):
        create()


def test_queues_are_made_and_changed(standin: StandIn, client: Any) -> None:
    name = standin.queue_name("mail")

    made = client.create_queue(parent=standin.parent, queue={"name": name})
    with pytest.raises(api.AlreadyExists):
        client.create_queue(parent=standin.parent, queue={"name": name})
    with pytest.raises(api.InvalidArgument):
        client.create_queue(parent=standin.parent, queue={"name": f"{name}_"})
    changed = client.update_queue(queue={"name": name, "retry_config": {"max_attempts": 7}})

    assert made.retry_config.max_attempts == 100
    assert made.retry_config.max_backoff == timedelta(hours=1)
    assert changed.retry_config.max_attempts == 7
    assert [q.name for q in client.list_queues(parent=standin.parent)] == sorted(
        [standin.queue_name("default"), name]
    )


def test_a_batch_is_repeated_by_its_request_id(standin: StandIn, web: Web, client: Any) -> None:
    parent = standin.queue_name("default")
    client.pause_queue(name=parent)
    one = tasks_v2.CreateTaskRequest(parent=parent, task=task_for(web.url))
    request = {"parent": parent, "requests": [one, one], "request_id": "r-1"}

    first, again = (client.batch_create_tasks(request=request) for _ in range(2))

    assert first.operation == again.operation
    assert len(standin.tasks("default")) == 2
    names = [task.name for task in standin.tasks("default")]
    client.batch_delete_tasks(request={"parent": parent, "names": [*names, f"{names[0]}x"]})
    assert standin.tasks("default") == []


def test_a_batch_of_more_than_a_hundred_is_refused(standin: StandIn, client: Any) -> None:
    parent = standin.queue_name("default")
    one = tasks_v2.CreateTaskRequest(parent=parent, task=task_for("http://x"))

    with pytest.raises(api.InvalidArgument):
        client.batch_create_tasks(parent=parent, requests=[one] * 101)


# Tokens.


def test_a_delivery_brings_a_token_that_its_keys_verify(
    standin: StandIn, web: Web, create: Callable[..., Any]
) -> None:
    create(http={"oidc_token": {"service_account_email": "a@example.org", "audience": "aud"}})

    assert eventually(lambda: web.asked)
    token = web.asked[0].headers["Authorization"].removeprefix("Bearer ")
    claims = _verified(standin, token, "aud")
    assert claims["email"] == "a@example.org"
    assert claims["email_verified"] is True
    assert claims["exp"] - claims["iat"] == 3600


def test_the_audience_is_the_url_by_default(web: Web, create: Any, standin: StandIn) -> None:
    create(http={"oidc_token": {"service_account_email": "a@example.org"}})

    assert eventually(lambda: web.asked)
    token = web.asked[0].headers["Authorization"].removeprefix("Bearer ")
    assert _verified(standin, token, f"{web.url}/work?x=1")


def test_keys_rotate_and_survive(tmp_path: Path) -> None:
    """Tokens of before are good as long as their keys are served; a restart signs on."""
    with StandIn(tmp_path, issuer="https://issuer.example") as first:
        before = first.token_for("a@b", "aud")
        first.rotate_key()
        after = first.token_for("a@b", "aud")
        assert _verified(first, before, "aud")
        assert _verified(first, after, "aud")
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    with StandIn(tmp_path, issuer="https://issuer.example") as second:
        assert _verified(second, before, "aud")
        assert _verified(second, second.token_for("a@b", "aud"), "aud")
        kid = jwt.get_unverified_header(second.token_for("a@b", "aud"))["kid"]
        assert kid == jwt.get_unverified_header(after)["kid"]
    assert stat.S_IMODE((tmp_path / "cloud-tasks.db").stat().st_mode) == 0o600


def _verified(standin: StandIn, token: str, audience: str) -> dict[str, Any]:
    with urllib.request.urlopen(standin.jwks_url) as answer:
        keys = jwt.PyJWKSet.from_dict(json.load(answer))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    found: dict[str, Any] = jwt.decode(
        token, key, algorithms=["RS256"], audience=audience, issuer=standin.issuer
    )
    return found


# Misbehaviour.


def test_it_fails_as_often_as_told(standin: StandIn, create: Any) -> None:
    standin.misbehave(fail=2, code="RESOURCE_EXHAUSTED")

    for _ in range(2):
        with pytest.raises(api.ResourceExhausted):
            create()
    create()


def test_it_delivers_twice_when_told(standin: StandIn, web: Web, create: Any) -> None:
    standin.misbehave(duplicate=1)
    create()

    assert eventually(lambda: not standin.tasks("default"))
    assert len(web.asked) == 2


def test_it_loses_a_workers_response_when_told(standin: StandIn, web: Web, create: Any) -> None:
    standin.misbehave(lose_response=1)
    create()

    assert eventually(lambda: not standin.tasks("default"))
    counts = [asked.headers["X-CloudTasks-TaskRetryCount"] for asked in web.asked]
    assert counts == ["0", "1"]
    assert "X-CloudTasks-TaskPreviousResponse" not in web.asked[1].headers


def test_it_delivers_out_of_order_when_told(
    standin: StandIn, web: Web, create: Any, client: Any
) -> None:
    """Thirty tasks in their own order by chance: one in 10**32."""
    standin.misbehave(reorder=True)
    client.pause_queue(name=standin.queue_name("default"))
    made = [create().name.rpartition("/")[2] for _ in range(30)]
    client.resume_queue(name=standin.queue_name("default"))

    assert eventually(lambda: len(web.asked) == 30)
    assert [asked.headers["X-CloudTasks-TaskName"] for asked in web.asked] != made


def test_it_delivers_late_when_told(standin: StandIn, web: Web, create: Any) -> None:
    standin.misbehave(delivery_delay=0.5)
    made = create()

    assert eventually(lambda: web.asked)
    assert web.asked[0].at >= made.schedule_time.timestamp() + 0.5


def test_orders_are_checked(standin: StandIn) -> None:
    with pytest.raises(ValidationError, match="no status code"):
        standin.misbehave(fail=1, code="NOPE")
    with pytest.raises(ValidationError):
        Misbehaviour.model_validate({"explode": True})


def test_it_is_told_over_http(standin: StandIn, create: Any) -> None:
    def put(text: bytes) -> Any:
        url = f"{standin.keys_address}/misbehaviour"
        request = urllib.request.Request(url, data=text, method="PUT")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    said = put(b'{"fail": 1, "code": "INTERNAL"}')

    assert said["misbehaviour"]["fail"] == 1
    assert said["queues"]["default"]["state"] == "RUNNING"
    with pytest.raises(api.InternalServerError):
        create()
    with pytest.raises(urllib.error.HTTPError, match="400"):
        put(b'{"explode": true}')


# Who may call, and what lasts.


def test_beyond_the_loopback_it_wants_a_token(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the loopback"):
        StandIn(tmp_path, host="0.0.0.0")


def test_with_a_token_callers_must_bring_it(tmp_path: Path) -> None:
    """Over gRPC and over HTTP; the keys are for everybody."""
    with StandIn(tmp_path, token="the-token") as standin:
        client = official_client(standin.address)
        request = {"parent": standin.parent}
        with pytest.raises(api.Unauthenticated):
            client.list_queues(request=request)
        with pytest.raises(api.Unauthenticated):
            client.list_queues(request=request, metadata=[("authorization", "Bearer wrong")])
        brought = [("authorization", "Bearer the-token")]
        assert list(client.list_queues(request=request, metadata=brought)) == []
        client.transport.close()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{standin.keys_address}/")
        with urllib.request.urlopen(standin.jwks_url) as answer:
            assert json.load(answer)["keys"]


def test_a_port_that_is_taken_is_told(standin: StandIn, tmp_path: Path) -> None:
    with pytest.raises((OSError, RuntimeError)):
        StandIn(tmp_path / "other", port=standin.port)


def test_a_restart_goes_on(tmp_path: Path, web: Web) -> None:
    """What was waiting is delivered, with its count of attempts; names stay taken."""
    port = free_port()
    with StandIn(tmp_path, port=port) as first:
        first.create_queue("default", min_backoff=0.05)
        client = official_client(first.address)
        parent = first.queue_name("default")
        web.answers = [500]
        client.create_task(parent=parent, task=task_for(web.url, name=f"{parent}/tasks/a"))
        assert eventually(lambda: first.tasks("default")[0].dispatch_count == 1)
    with StandIn(tmp_path, port=port) as second:
        assert eventually(lambda: not second.tasks("default"))
        with pytest.raises(api.AlreadyExists):
            client.create_task(parent=parent, task=task_for(web.url, name=f"{parent}/tasks/a"))
    client.transport.close()
    assert web.asked[-1].headers["X-CloudTasks-TaskRetryCount"] != "0"


def test_the_asyncio_client_talks_to_it(standin: StandIn) -> None:
    import asyncio

    from google.cloud.tasks_v2.services.cloud_tasks.transports import (
        CloudTasksGrpcAsyncIOTransport,
    )

    async def main() -> list[Any]:
        channel = grpc.aio.insecure_channel(standin.address)
        transport = CloudTasksGrpcAsyncIOTransport(channel=channel)
        client = tasks_v2.CloudTasksAsyncClient(transport=transport)
        found = await client.list_queues(parent=standin.parent)
        queues = [queue.name async for queue in found]
        await channel.close()
        return queues

    assert asyncio.run(main()) == [standin.queue_name("default")]
