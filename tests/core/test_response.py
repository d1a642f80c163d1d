"""`DispatchResponse` and `DispatchResponses`: what became of dispatches."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from dispatchers import (
    DispatchError,
    DispatchFailure,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
    DispatchUnknownError,
    ErrorCategory,
)

OK = ("executed", "accepted", "duplicate", "deferred")
NOT_OK = ("failed", "rejected", "unknown")


def response(status: str = "accepted", **values: Any) -> DispatchResponse:
    error = DispatchFailure(category=ErrorCategory.UNAVAILABLE, message="it is down")
    return DispatchResponse(
        **{
            "request_id": "r1",
            "dispatcher": "default",
            "backend": "celery",
            "status": DispatchStatus(status),
            "error": None if status in OK else error,
            **values,
        }
    )


@pytest.mark.parametrize("status", OK)
def test_four_statuses_are_ok(status):
    """C3: `ok` and the truth of the response agree, and there is no error."""
    found = response(status)

    assert found.ok
    assert found
    assert found.error is None
    assert found.raise_for_error() is found


@pytest.mark.parametrize("status", NOT_OK)
def test_three_statuses_are_not_ok(status):
    """C3: for the other three, error is set."""
    found = response(status)

    assert not found.ok
    assert not found
    assert found.error.category is ErrorCategory.UNAVAILABLE


def test_every_status_is_one_or_the_other():
    """No status is forgotten."""
    assert sorted(status.value for status in DispatchStatus) == sorted((*OK, *NOT_OK))


@pytest.mark.parametrize(
    ("status", "error"), [("accepted", True), ("failed", False), ("unknown", False)]
)
def test_a_response_without_the_right_error_cannot_be_made(status, error):
    """C3: error is there exactly when the response is not ok."""
    failure = DispatchFailure(category=ErrorCategory.HANDLER) if error else None

    with pytest.raises(ValidationError, match="error exactly when not ok"):
        response(status, error=failure)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(status, status in ("executed", "failed")) for status in (*OK, *NOT_OK)],
)
def test_is_sync_says_that_the_work_ran_here(status, expected):
    """`executed` and `failed` are what became of the work itself."""
    assert response(status).is_sync is expected


def test_a_response_is_frozen_and_strict():
    """It cannot be changed, and takes no other types."""
    found = response()

    with pytest.raises(ValidationError, match="frozen"):
        found.status = DispatchStatus.UNKNOWN
    for values in ({"request_id": 5}, {"elapsed": -1.0}, {"confirmed": 1}, {"result": 5}):
        with pytest.raises(ValidationError):
            response(**values)


def test_a_response_round_trips_through_json():
    """Every field, the request with its payload among them."""
    request = DispatchRequest(task="t", payload={"n": None, "big": 2**70})
    found = response(
        "failed",
        task_id="b-7",
        confirmed=True,
        durable=True,
        waived=("delay", "priority"),
        error=DispatchFailure(
            category=ErrorCategory.HANDLER, exception_type="shop.Oops", message="ü", retryable=True
        ),
        elapsed=0.25,
        request=request,
    )

    again = DispatchResponse.model_validate_json(found.model_dump_json())

    assert again == found
    assert again.request == request
    assert again.waived == ("delay", "priority")


def test_a_response_of_a_dispatch_round_trips_through_json(send_welcome, inline):
    """What `dispatch` gives is a response like any other."""
    found = send_welcome.dispatch(1)

    again = DispatchResponse.model_validate_json(found.model_dump_json())

    assert again == found
    assert again.request.payload == {"user_id": 1}


def test_enum_values_are_the_words_of_the_contract():
    """JSON has `"accepted"` and `"circuit_open"`."""
    text = response("rejected").model_dump_json()

    assert '"status":"rejected"' in text
    assert '"category":"unavailable"' in text
    assert all(category.value == category.name.lower() for category in ErrorCategory)


def test_the_repr_hides_the_request():
    """C4: a response in a log shows no payload."""
    request = DispatchRequest(task="t", payload={"password": "s3cret"})
    found = response(request=request)

    assert "s3cret" not in f"{found!r} {found!s} {DispatchResponses([found])!r}"
    assert "request=" not in repr(found)


@pytest.mark.parametrize("status", ["failed", "rejected"])
def test_raise_for_error_raises_dispatch_error(status):
    """For those who prefer exceptions; the response goes along."""
    found = response(status)

    with pytest.raises(DispatchError) as caught:
        found.raise_for_error()

    assert caught.value.response is found
    assert type(caught.value) is DispatchError
    assert f"'default' was {status}: unavailable: it is down" in str(caught.value)


def test_unknown_raises_an_error_of_its_own():
    """What may have been handed over must not be repeated blindly."""
    with pytest.raises(DispatchUnknownError):
        response("unknown").raise_for_error()


def test_what_was_raised_here_is_the_cause(adapter, request_):
    """The original exception is at hand, and chained; it is not part of the value."""
    original = ConnectionError("refused")
    found = adapter(original).dispatch(request_)

    with pytest.raises(DispatchError) as caught:
        found.raise_for_error()

    assert found.exception is original
    assert caught.value.__cause__ is original
    assert found == found.model_copy()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_equals_the_original(duplicate):
    """Responses may be kept, and handed to another process."""
    found = response("failed", request=DispatchRequest(task="t", payload={"a": [1]}))

    assert duplicate(found) == found


def test_an_error_can_be_pickled():
    """A test runner or a pool hands exceptions to other processes."""
    error = DispatchUnknownError(response("unknown"))

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), again.response) == (DispatchUnknownError, error.response)


def test_responses_are_a_sequence_in_order():
    """Indexed, sliced, counted and iterated like a tuple."""
    items = [response(request_id=str(n)) for n in range(4)]

    found = DispatchResponses(items)

    assert list(found) == items
    assert (len(found), found[1], found[-1]) == (4, items[1], items[3])
    assert found[1:3] == DispatchResponses(items[1:3])
    assert hash(found) == hash(DispatchResponses(items))


def test_the_repr_of_many_responses_is_short():
    """C2: `asyncio.run()` makes the repr of its result: it costs the same for any batch."""
    many = DispatchResponses([response()] * 20_000)

    assert repr(many).endswith("... 19980 more])")
    assert len(repr(many)) < 20_000
    assert "more" not in repr(many[:20])


def test_responses_are_ok_when_all_are():
    """`bool` and `ok` agree, and nothing dispatched is ok."""
    assert DispatchResponses([response(), response("executed")]).ok
    assert DispatchResponses()
    assert not DispatchResponses([response(), response("failed")])


def test_failed_are_those_that_are_not_ok():
    """In order, each with its request for another try."""
    bad = [response("rejected", request_id="a"), response("unknown", request_id="b")]

    found = DispatchResponses([response(), bad[0], response(), bad[1]])

    assert list(found.failed) == bad


def test_responses_raise_the_most_dangerous_error_first():
    """An unknown one among rejected ones must not be taken for a rejected one."""
    found = DispatchResponses([response("rejected"), response("unknown"), response()])

    with pytest.raises(DispatchUnknownError):
        found.raise_for_error()
    with pytest.raises(DispatchError):
        found[:1].raise_for_error()
    assert found[2:].raise_for_error() == found[2:]
