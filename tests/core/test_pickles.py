"""Public values are pickled under the names that users import."""

from __future__ import annotations

import copy
import pickle
import pickletools
from datetime import UTC, datetime, timedelta

import pytest

import dispatchers
from dispatchers import (
    Action,
    BackendOptions,
    Backoff,
    Capabilities,
    Claim,
    ConfigurationError,
    DeadLetter,
    DeclarationError,
    Discard,
    DispatchFailure,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
    ErrorCategory,
    Outcome,
    PayloadError,
    Reason,
    RejectedError,
    Retry,
    RunFailure,
    Sent,
    WorkerOptions,
    task,
)
from dispatchers._config.json_schema import field_docstrings

REQUEST = DispatchRequest(
    task="shop.send",
    payload={"a": [1, {"b": None}]},
    headers={"traceparent": "00-1"},
    context={"tenant": 5},
    delay=timedelta(seconds=5),
    expires=datetime(2100, 1, 1, tzinfo=UTC),
    backoff=Backoff(initial=3),
    time_limit=2.5,
    deadline=1.0,
    idempotency_key="k",
)
FAILURE = DispatchFailure(category=ErrorCategory.TIMEOUT, message="late", retryable=True)
RESPONSE = DispatchResponse(
    request_id=REQUEST.id,
    dispatcher="default",
    backend="null",
    status=DispatchStatus.UNKNOWN,
    error=FAILURE,
    request=REQUEST,
)
VALUES = [
    REQUEST,
    FAILURE,
    RESPONSE,
    DispatchResponses([RESPONSE]),
    DispatchResponses([RESPONSE]).failed,
    Backoff(initial=2),
    Capabilities(delay=True),
    BackendOptions(queue="mail"),
    Claim("busy", 3.0),
    Sent("id", DispatchStatus.DUPLICATE),
    WorkerOptions(concurrency=3),
    RunFailure(message="boom"),
    Outcome(action=Action.DEAD, reason=Reason.PERMANENT, error=RunFailure(message="boom")),
    DeadLetter(id="1", task="t", reason="permanent", body=b"{}"),
    *(ErrorCategory.INVALID, DispatchStatus.ACCEPTED, Action.RETRY, Reason.FAILED),
]
ERRORS = [
    ConfigurationError("a"),
    DeclarationError("a"),
    PayloadError("a", "b"),
    RejectedError(ErrorCategory.INVALID, "a"),
    Discard(),
    Retry(),
]


def modules_in(data: bytes) -> set[str]:
    """The modules that a pickle names."""
    texts: list[str] = []
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "STACK_GLOBAL":
            found.add(texts[-2])
        elif opcode.name == "GLOBAL":
            found.add(str(argument).split(" ")[0])
        elif isinstance(argument, str):
            texts.append(argument)
    return found


@pytest.mark.parametrize("value", [*VALUES, *ERRORS], ids=lambda value: type(value).__name__)
def test_a_public_value_survives_a_pickle_that_names_public_modules_only(value):
    """A pickle of another release is readable as long as its public names are."""
    data = pickle.dumps(value)

    again = pickle.loads(data)

    assert type(again) is type(value)
    assert str(again) == str(value) if isinstance(value, Exception) else again == value
    private = {name for name in modules_in(data) if name.startswith("dispatchers.")}
    assert private == set()
    assert getattr(dispatchers, type(value).__name__) is type(value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_request_survives_every_protocol(protocol):
    """Its payload is the same text, and it can be dispatched again."""
    again = pickle.loads(pickle.dumps(REQUEST, protocol))

    assert again == REQUEST
    assert again.payload == {"a": [1, {"b": None}]}
    assert again.deadline == 1.0
    assert copy.deepcopy(REQUEST) == REQUEST


def test_a_request_of_a_task_survives():
    """One that was made from typed arguments, too."""

    @task(name="pickles.work")
    def work(at: datetime) -> None: ...

    request = work.request(at=datetime(2026, 1, 1, tzinfo=UTC))

    assert pickle.loads(pickle.dumps(request)) == request


def test_the_source_of_a_public_value_is_found():
    """The schema of the configuration describes the options that every backend has."""
    assert field_docstrings(BackendOptions)["queue"].startswith("The queue of requests")
