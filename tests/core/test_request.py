"""`DispatchRequest` and `Backoff`: frozen, strict, quiet about their content."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from dispatchers import Backoff, DispatchRequest

EAST = timezone(timedelta(hours=2))
SECRET = "s3cret-4711"


class Color(Enum):
    RED = "red"


class Order:
    """Like a row of an ORM: attributes, and a repr that shows them."""

    def __init__(self) -> None:
        self.id = SECRET

    def __repr__(self) -> str:
        return f"<Order {self.id}>"


def problem_of(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        DispatchRequest(**{"task": "shop.send", **values})
    return str(caught.value)


def cyclic() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["self"] = found
    return found


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_a_request_needs_no_more_than_a_task():
    """Id and time are made up, everything else is empty."""
    request = DispatchRequest(task="shop.send")

    assert (len(request.id), request.created_at.tzinfo) == (32, UTC)
    assert (request.payload, request.headers, request.context) == ({}, {}, {})


def test_every_request_has_an_id_of_its_own():
    """Two requests of the same task are two pieces of work."""
    ids = {DispatchRequest(task="shop.send").id for _ in range(100)}

    assert len(ids) == 100


def test_a_request_is_frozen():
    """No field can be set or deleted."""
    request = DispatchRequest(task="shop.send")

    with pytest.raises(ValidationError, match="frozen"):
        request.queue = "mail"
    with pytest.raises(ValidationError, match="frozen"):
        del request.queue


def test_unknown_fields_are_refused():
    """A misspelt field is an error, never dropped."""
    assert "dealy" in problem_of(dealy=timedelta(1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", 5),
        ("task", ""),
        ("task", "two words"),
        ("task", 'quo"te'),
        ("task", "back\\slash"),
        ("task", "tab\there"),
        ("task", "x" * 256),
        ("task", "\udc80"),
        ("id", ""),
        ("id", "a b"),
        ("id", "x" * 65),
        ("id", uuid4()),
        ("queue", ""),
        ("queue", 5),
        ("queue", "\udc80"),
        ("delay", 5),
        ("delay", timedelta(seconds=-1)),
        ("delay", timedelta.max),
        ("eta", 1700000000),
        ("eta", "2024-01-01T00:00:00Z"),
        ("eta", datetime.min.replace(tzinfo=EAST)),
        ("expires", timedelta(seconds=-1)),
        ("expires", timedelta.max),
        ("expires", 5),
        ("priority", True),
        ("priority", 1.0),
        ("priority", "1"),
        ("priority", 101),
        ("priority", -101),
        ("time_limit", 0),
        ("time_limit", -1.0),
        ("time_limit", True),
        ("time_limit", float("nan")),
        ("time_limit", float("inf")),
        ("time_limit", timedelta(0)),
        ("deadline", True),
        ("deadline", 0),
        ("deadline", float("inf")),
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_attempts", 1.5),
        ("backoff", 5),
        ("idempotency_key", ""),
        ("idempotency_key", 5),
        ("idempotency_key", "x" * 513),
        ("idempotency_key", "\udc80"),
        ("deduplicate", 1),
        ("deduplicate", "yes"),
        ("headers", {"a": 1}),
        ("headers", {"a": None}),
        ("headers", {1: "a"}),
        ("headers", {"a": "\udc80"}),
        ("headers", ["a"]),
        ("headers", None),
        ("context", "text"),
        ("version", 2),
        ("version", "1"),
        ("created_at", 5),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(field, value):
    """Strict: nothing is converted, and the message names the field."""
    assert field in problem_of(**{field: value})


@pytest.mark.parametrize("field", ["created_at", "eta", "expires"])
def test_naive_datetimes_are_refused(field):
    """A datetime without a zone is refused; the message has the cure."""
    assert "datetime.now(UTC)" in problem_of(**{field: datetime(2024, 1, 1)})


def test_instants_are_kept_in_utc():
    """The same instant in another zone is the same value."""
    noon = datetime(2024, 1, 1, 12, tzinfo=EAST)

    request = DispatchRequest(task="shop.send", eta=noon, created_at=noon)

    assert (request.eta, request.eta.tzinfo) == (noon, UTC)
    assert request.created_at.hour == 10


def test_delay_and_eta_exclude_each_other():
    """Only one of them can say when work becomes due."""
    problem = problem_of(delay=timedelta(1), eta=datetime.now(UTC))

    assert "delay and eta are both given" in problem


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"delay": timedelta(0)}, None),
        ({"delay": timedelta(minutes=5)}, datetime(2024, 1, 1, 0, 5, tzinfo=UTC)),
        ({"eta": datetime(1969, 1, 1, tzinfo=UTC)}, datetime(1969, 1, 1, tzinfo=UTC)),
    ],
)
def test_due_counts_from_the_creation(values, expected):
    """A delay begins when the request is made, an eta stands for itself, in the past too."""
    created = datetime(2024, 1, 1, tzinfo=UTC)

    assert DispatchRequest(task="shop.send", created_at=created, **values).due == expected


def test_expires_is_a_span_from_the_creation_or_an_instant():
    """Both name the same instant."""
    created = datetime(2024, 1, 1, tzinfo=UTC)
    span = DispatchRequest(task="t", created_at=created, expires=timedelta(hours=1))
    instant = DispatchRequest(task="t", expires=created + timedelta(hours=1))

    assert span.expires_at == instant.expires_at
    assert DispatchRequest(task="t").expires_at is None


def test_the_schema_says_what_is_refused():
    """For whoever writes envelopes in another language."""
    properties = DispatchRequest.model_json_schema()["properties"]

    for name in ("time_limit", "deadline"):
        assert properties[name]["anyOf"][0] == {"exclusiveMinimum": 0, "type": "number"}


def test_seconds_may_be_given_as_timedelta():
    """Time limit and deadline are seconds in the end."""
    request = DispatchRequest(task="t", time_limit=timedelta(minutes=1), deadline=timedelta(0, 3))

    assert (request.time_limit, request.deadline) == (60.0, 3.0)


def test_the_key_is_the_idempotency_key_or_else_the_id():
    """C10: without a key the request's id serves."""
    assert DispatchRequest(task="t", id="a1").key == "a1"
    assert DispatchRequest(task="t", id="a1", idempotency_key="k").key == "k"


@pytest.mark.parametrize("field", ["payload", "context"])
@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, float("nan")]}, "a[1]"),
        ({"a": {"b": float("inf")}}, "a.b"),
        ({"a": "\udc80"}, "a"),
        ({"a": [{"b": "x\ud800"}]}, "a[0].b"),
        ({"a": cyclic()}, "a"),
        ({"a": nested(100_000)}, "a"),
        ({"a": {1, 2}}, "a"),
        ({"a": b"bytes"}, "a"),
        ({"a": 10**5000}, "a"),
        ({"a": Decimal("1.5")}, "a"),
        ({"a": datetime(2024, 1, 1, tzinfo=UTC)}, "a"),
        ({"a": uuid4()}, "a"),
        ({"a": Color.RED}, "a"),
        ({"a": [Order()]}, "a[0]"),
        ({"a": object()}, "a"),
        ({"a": {1: "b"}}, "a"),
        ({"a": {1: "b", "1": "c"}}, "a"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value), ""),
)
def test_what_json_would_alter_is_refused_with_its_path(field, value, path):
    """C5: no value of a hand-built payload or context may arrive as another."""
    problem = problem_of(**{field: value})

    assert field in problem
    assert f"'{path}" in problem


@pytest.mark.parametrize("value", [None, [], "text", 5, Order(), [("a", 1)]])
def test_a_payload_is_a_map(value):
    """Arguments go by name."""
    assert "takes a dict" in problem_of(payload=value)


def test_keys_that_are_no_text_are_refused():
    """A lone surrogate, or a number, is no name."""
    assert "payload" in problem_of(payload={"\udc80": 1})
    assert "an int for its key" in problem_of(payload={1: 1})


@pytest.mark.parametrize(
    "payload",
    [
        {"password": SECRET, "bad": object()},
        {"password": {SECRET}},
        {"password": [SECRET, float("nan")]},
        {"order": Order()},
        SECRET,
    ],
)
def test_an_error_never_quotes_the_payload(payload):
    """C4: what does not fit is described, not shown."""
    assert SECRET not in problem_of(payload=payload)
    assert SECRET not in problem_of(context=payload)


def test_the_repr_hides_the_content():
    """A request in a log or a traceback names the work only."""
    request = DispatchRequest(
        task="shop.send",
        payload={"password": SECRET},
        headers={"authorization": SECRET},
        context={"user": SECRET},
    )

    shown = f"{request!r} {request!s} {request.payload!r} {request.headers!r} {request.context}"

    assert "shop.send" in shown
    assert SECRET not in shown


def test_a_payload_of_ten_megabytes_is_taken():
    """Size is the backend's to refuse, not the model's."""
    text = "x" * (10 * 2**20)

    request = DispatchRequest(task="t", payload={"text": text})

    assert request.payload["text"] == text


def test_a_request_keeps_its_payload_when_the_caller_changes_it():
    """What was given is copied: later changes of the caller's objects do not travel."""
    given = {"tags": ["a"]}
    request = DispatchRequest(task="t", payload=given)

    given["tags"].append("b")

    assert request.payload == {"tags": ["a"]}


def test_a_payload_is_a_read_only_map():
    """It can be read like a dict, hashed, and not set."""
    payload = DispatchRequest(task="t", payload={"a": 1, "b": 2}).payload

    assert (dict(payload), len(payload), payload.get("c")) == ({"a": 1, "b": 2}, 2, None)
    with pytest.raises(TypeError):
        payload["a"] = 2


def test_equal_maps_have_equal_hashes():
    """The order of their keys does not matter to either."""
    left = DispatchRequest(task="t", payload={"a": 1, "b": 2}).payload
    right = DispatchRequest(task="t", payload={"b": 2, "a": 1}).payload

    assert left == right
    assert hash(left) == hash(right)


FULL = {
    "task": "shop.send",
    "id": "a-1",
    "created_at": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=EAST),
    "payload": {"n": None, "big": 2**80, "text": "ü\x00", "deep": [{"x": [1.5, True]}]},
    "fingerprint": "0123456789ab",
    "queue": "mail",
    "delay": timedelta(days=3, microseconds=7),
    "expires": timedelta(days=400),
    "priority": -100,
    "time_limit": 1.5,
    "max_attempts": 3,
    "backoff": Backoff(initial=0.1, factor=3, maximum=9, jitter=0.5),
    "idempotency_key": "k ü",
    "headers": {"traceparent": "00-a-b-01"},
    "context": {"tenant": {"id": 5}},
    "deadline": 0.25,
    "deduplicate": True,
}


@pytest.mark.parametrize("values", [{"task": "t"}, FULL], ids=["smallest", "fullest"])
def test_a_request_round_trips_through_json(values):
    """Every field arrives equal and of the same type."""
    request = DispatchRequest(**values)

    again = DispatchRequest.model_validate_json(request.model_dump_json())

    assert again == request
    assert again.model_dump() == request.model_dump()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda request: pickle.loads(pickle.dumps(request))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_equals_the_original(duplicate, send_welcome):
    """A request made by hand or by a task may be copied, and handed to another process."""
    by_hand, by_task = DispatchRequest(**FULL), send_welcome.request(1)

    assert duplicate(by_hand) == by_hand
    assert duplicate(by_task) == by_task


def test_a_request_is_hashable():
    """Requests can stand in sets and be keys."""
    request = DispatchRequest(**FULL)

    assert {request: 1}[DispatchRequest(**FULL)] == 1


def test_replace_gives_a_validated_copy():
    """The id stays, so that the same work can be dispatched again with other options."""
    request = DispatchRequest(**FULL)

    changed = request.replace(queue="low", delay=None, payload={"other": 1})

    assert (changed.id, changed.queue, changed.delay) == ("a-1", "low", None)
    assert changed.payload == {"other": 1}
    assert request.queue == "mail"


@pytest.mark.parametrize("changes", [{"priority": 500}, {"que": "low"}, {"payload": {"a": {1}}}])
def test_replace_refuses_what_the_constructor_refuses(changes):
    """There is no way around validation, `model_copy` included."""
    request = DispatchRequest(task="t")

    with pytest.raises(ValidationError):
        request.replace(**changes)
    with pytest.raises(ValidationError):
        request.model_copy(update=changes)


def test_a_copy_of_a_task_s_request_says_and_sends_the_same(send_welcome):
    """A request that came with a head made by its task does not keep it when it is changed."""
    from dispatchers._models.envelope import decode, encode

    request = send_welcome.options(queue="mail").request(1)

    changed = request.replace(queue="low")

    assert decode(encode(changed)).queue == "low"
    assert decode(encode(request)).queue == "mail"


@pytest.mark.parametrize(
    ("attempt", "expected"), [(1, 10.0), (2, 20.0), (3, 40.0), (9, 60.0), (5000, 60.0)]
)
def test_backoff_grows_up_to_its_maximum(attempt, expected):
    """Seconds between attempts, whatever their number."""
    assert Backoff(initial=10, factor=2, maximum=60).after(attempt) == expected


def test_jitter_takes_off_at_most_its_part():
    """0.5 makes 10 s anything from 5 to 10 s."""
    backoff = Backoff(initial=10, jitter=0.5)

    waits = {backoff.after(1) for _ in range(200)}

    assert all(5 <= wait <= 10 for wait in waits)
    assert len(waits) > 1


@pytest.mark.parametrize(
    "values",
    [
        {"initial": -1},
        {"factor": 0.5},
        {"maximum": -1},
        {"jitter": 1.5},
        {"initial": True},
        {"initial": float("nan")},
        {"start": 1},
    ],
)
def test_backoff_refuses_what_makes_no_sense(values):
    """Waits are never negative and never shrink."""
    with pytest.raises(ValidationError):
        Backoff(**values)
