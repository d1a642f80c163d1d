"""Every error of the client and the service: its category, and whether the task is taken."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from dispatchers_cloud_tasks import CloudTasksDispatcher
from dispatchers_cloud_tasks._errors import CATEGORIES, category_of
from dispatchers_cloud_tasks.standin import StandIn
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksRestTransport

from dispatchers import ConfigurationError, DispatchStatus, ErrorCategory
from dispatchers.testing import tasks

from .web import Web

REJECTED, UNKNOWN = DispatchStatus.REJECTED, DispatchStatus.UNKNOWN
CODES = {
    "CANCELLED": (UNKNOWN, ErrorCategory.UNAVAILABLE),
    "UNKNOWN": (UNKNOWN, ErrorCategory.UNAVAILABLE),
    "INVALID_ARGUMENT": (REJECTED, ErrorCategory.INVALID),
    "DEADLINE_EXCEEDED": (UNKNOWN, ErrorCategory.TIMEOUT),
    "NOT_FOUND": (REJECTED, ErrorCategory.NOT_FOUND),
    "ALREADY_EXISTS": (DispatchStatus.DUPLICATE, None),
    "PERMISSION_DENIED": (REJECTED, ErrorCategory.PERMISSION),
    "RESOURCE_EXHAUSTED": (REJECTED, ErrorCategory.THROTTLED),
    "FAILED_PRECONDITION": (REJECTED, ErrorCategory.CONFLICT),
    "ABORTED": (UNKNOWN, ErrorCategory.UNAVAILABLE),
    "OUT_OF_RANGE": (REJECTED, ErrorCategory.INVALID),
    "UNIMPLEMENTED": (REJECTED, ErrorCategory.UNSUPPORTED),
    "INTERNAL": (UNKNOWN, ErrorCategory.UNAVAILABLE),
    "UNAVAILABLE": (UNKNOWN, ErrorCategory.UNAVAILABLE),
    "DATA_LOSS": (UNKNOWN, ErrorCategory.UNAVAILABLE),
    "UNAUTHENTICATED": (REJECTED, ErrorCategory.AUTHENTICATION),
}
"""What each of gRPC's codes is answered as."""
OVER_REST = {
    400: (REJECTED, ErrorCategory.INVALID),
    401: (REJECTED, ErrorCategory.AUTHENTICATION),
    403: (REJECTED, ErrorCategory.PERMISSION),
    404: (REJECTED, ErrorCategory.NOT_FOUND),
    409: (DispatchStatus.DUPLICATE, None),
    429: (REJECTED, ErrorCategory.THROTTLED),
    500: (UNKNOWN, ErrorCategory.UNAVAILABLE),
    501: (REJECTED, ErrorCategory.UNSUPPORTED),
    502: (UNKNOWN, ErrorCategory.UNAVAILABLE),
    503: (UNKNOWN, ErrorCategory.UNAVAILABLE),
    504: (UNKNOWN, ErrorCategory.TIMEOUT),
}
"""What each HTTP status is answered as."""


def dispatcher_for(standin: StandIn, **options: Any) -> CloudTasksDispatcher:
    return CloudTasksDispatcher(
        **{
            "project": standin.project,
            "location": standin.location,
            "queue": "default",
            "worker_url": "http://127.0.0.1:9",
            "service_account": "a@example.org",
            "endpoint": standin.address,
            "breaker": False,
            **options,
        }
    )


def test_every_code_of_grpc_is_mapped() -> None:
    """C4: none is left over."""
    assert set(CODES) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("code", CODES)
def test_a_code_of_grpc_has_its_category(standin: StandIn, code: str) -> None:
    """C3, C4: alone and in a batch, a refusal is told from what nobody knows."""
    dispatcher = dispatcher_for(standin)
    standin.misbehave(fail=2, code=code)

    single = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    requests = [tasks.note.request("/nowhere") for _ in range(2)]
    many, other = dispatcher.dispatch_many(requests)
    dispatcher.close()

    assert (single.status, single.error and single.error.category) == CODES[code]
    assert other.ok == many.ok
    if code == "UNIMPLEMENTED":  # then one by one
        assert many.ok
    elif code != "ALREADY_EXISTS":  # a batch as a whole is no duplicate
        assert (many.status, many.error and many.error.category) == CODES[code]


@pytest.mark.parametrize(
    ("names", "statuses"),
    [("always", [DispatchStatus.ACCEPTED] * 3), ("keyed", [UNKNOWN] * 3)],
)
def test_what_a_connection_has_lost_is_handed_over_once_more(
    standin: StandIn, names: str, statuses: list[DispatchStatus]
) -> None:
    """C2: a connection that ended between two calls costs none, where tasks have names."""
    dispatcher = dispatcher_for(standin, names=names)
    note = tasks.note.options(dispatcher=dispatcher)

    note.dispatch("/nowhere").raise_for_error()
    standin.misbehave(fail=1)
    single = note.dispatch("/nowhere")
    note.dispatch("/nowhere").raise_for_error()
    standin.misbehave(fail=1)
    many = dispatcher.dispatch_many([tasks.note.request("/nowhere") for _ in range(2)])
    dispatcher.close()

    assert [single.status, *(each.status for each in many)] == statuses


def test_what_is_lost_twice_is_unknown(standin: StandIn) -> None:
    """C3: one more call is all that is tried; what became of the first is not known."""
    dispatcher = dispatcher_for(standin)
    note = tasks.note.options(dispatcher=dispatcher)

    note.dispatch("/nowhere").raise_for_error()
    standin.misbehave(fail=2)
    lost, after = note.dispatch("/nowhere"), note.dispatch("/nowhere")
    dispatcher.close()

    assert (lost.status, after.status) == (UNKNOWN, DispatchStatus.ACCEPTED)


def test_no_exception_of_the_client_is_unmapped() -> None:
    """C4: each class of `google.api_core` and `google.auth` has a category."""
    found = [
        kind
        for module in (api, auth)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, api.GoogleAPIError | auth.GoogleAuthError)
    ]
    unmapped = [kind.__name__ for kind in found if not set(kind.__mro__) & set(CATEGORIES)]

    assert len(found) > 40
    assert unmapped == []
    assert category_of(api.RetryError("late", None)) is ErrorCategory.TIMEOUT
    assert category_of(ValueError()) is None


def over_rest(web: Web) -> Any:
    transport = CloudTasksRestTransport(
        host=web.url.removeprefix("http://"),
        credentials=AnonymousCredentials(),
        url_scheme="http",
    )
    return tasks_v2.CloudTasksClient(transport=transport)


@pytest.mark.parametrize("status", OVER_REST)
def test_a_status_of_http_has_its_category(web: Web, status: int) -> None:
    """C4: a client of the user's own over REST; already-exists is DUPLICATE there, too."""
    web.answers = [status]
    web.text = lambda status: json.dumps({"error": {"code": status, "message": "no"}}).encode()
    dispatcher = CloudTasksDispatcher(
        project="p",
        location="l",
        queue="q",
        worker_url="https://w",
        service_account=False,
        client=over_rest(web),
    )

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    assert (response.status, response.error and response.error.category) == OVER_REST[status]


def test_a_task_over_rest_is_accepted(web: Web) -> None:
    """A client of another transport hands over."""
    web.text = lambda _: json.dumps({"name": "projects/p/locations/l/queues/q/tasks/t"}).encode()
    dispatcher = CloudTasksDispatcher(
        project="p",
        location="l",
        queue="q",
        worker_url="https://w",
        service_account=False,
        client=over_rest(web),
    )

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    assert response.status is DispatchStatus.ACCEPTED
    assert response.task_id == "projects/p/locations/l/queues/q/tasks/t"


def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """C4: a process without Google's credentials is REJECTED, `authentication`, in time."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    dispatcher = CloudTasksDispatcher(
        project="p", location="l", queue="q", worker_url="https://w", service_account="a@b"
    )

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    assert response.status is REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.AUTHENTICATION


def test_a_lost_reply_is_unknown(standin: StandIn) -> None:
    """C3: the task is there, and the caller does not know; repeating the request is safe."""
    dispatcher = dispatcher_for(standin)
    standin.misbehave(lose_reply=1)
    request = tasks.note.options(deadline=0.3).request("/nowhere")

    lost = dispatcher.dispatch(request)
    again = dispatcher.dispatch(request.replace(deadline=None))
    dispatcher.close()

    assert lost.status is UNKNOWN
    assert again.status is DispatchStatus.DUPLICATE


def test_a_queue_that_is_missing_is_not_found(standin: StandIn) -> None:
    dispatcher = dispatcher_for(standin, queue="nowhere")

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    many = dispatcher.dispatch_many([tasks.note.request("/nowhere")])
    dispatcher.close()

    for each in (response, *many):
        assert each.error is not None
        assert each.error.category is ErrorCategory.NOT_FOUND


def test_a_paused_queue_takes_work(standin: StandIn, client: Any) -> None:
    """Paused is about delivery: "tasks can still be added"; only a disabled queue refuses."""
    client.pause_queue(name=standin.queue_name("default"))
    dispatcher = dispatcher_for(standin)

    response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    dispatcher.close()

    assert response.ok
    assert len(standin.tasks("default")) == 1


@pytest.mark.parametrize("many", [False, True])
def test_a_client_that_cannot_be_made_is_rejected(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """C3: what fails while the client is made was certainly not sent."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such universe domain")

    monkeypatch.setattr(tasks_v2, "CloudTasksClient", broken)
    dispatcher = dispatcher_for(standin)
    request = tasks.note.request("/x")

    response = dispatcher.dispatch_many([request])[0] if many else dispatcher.dispatch(request)

    assert response.status is REJECTED
    assert response.error.category is ErrorCategory.CONFIGURATION
    assert "could not be made: ValueError" in response.error.message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("worker_url", "https://"),
        ("worker_url", "https:///run"),
        ("worker_url", "https://:443"),
        ("worker_url", "worker.example"),
        ("worker_url", "https://worker:99999"),
        ("worker_url", "https://wor ker"),
        ("worker_url", "https://user:pass@worker"),
        ("worker_url", "https://worker?x=1"),
        ("worker_url", "https://worker#x"),
        ("audience", ""),
        ("audience", "  "),
        ("service_account", ""),
        ("service_account", "worker"),
        ("service_account", True),
        ("secret", ""),
        ("token", " "),
        ("project", " "),
        ("location", "eu/west"),
        ("queue", "a queue"),
        ("path", "run"),
        ("path", "/run?x=1"),
        ("client", object()),
        ("client", "shop.gcp:client"),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_start(
    standin: StandIn, option: str, value: object
) -> None:
    """C12: every option is checked by the constructor, which names it."""
    with pytest.raises(ConfigurationError, match=option):
        dispatcher_for(standin, **{option: value})
