"""The envelope: version 1 byte by byte, what is read, what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchers import Backoff, DispatchRequest, run_envelope, task
from dispatchers._models.envelope import (
    EnvelopeError,
    NewerEnvelopeError,
    decode,
    encode,
    task_name,
)

GOLDEN = Path(__file__).parent / "golden"

AT = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
FIXED: dict[str, Any] = {"id": "0123456789abcdef0123456789abcdef", "created_at": AT}
REQUESTS = {
    "smallest": DispatchRequest(task="shop.send_welcome", **FIXED),
    "fullest": DispatchRequest(
        task="shop.send_welcome",
        **FIXED,
        payload={
            "none": None,
            "text": 'ü "quoted" \\ \x00 \u2028 😀',
            "big": 2**80,
            "float": 0.1,
            "deep": [{"a": [True, False, []]}],
        },
        fingerprint="0123456789ab",
        queue="mail",
        delay=timedelta(days=1, hours=2, microseconds=3),
        expires=timedelta(days=400),
        priority=-100,
        time_limit=1.5,
        max_attempts=5,
        backoff=Backoff(initial=10, factor=2, maximum=600, jitter=0.1),
        idempotency_key="w-42 ü",
        headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        context={"tenant": {"id": 5}},
        deadline=0.5,
        deduplicate=True,
    ),
    "instants": DispatchRequest(
        task="shop.send_welcome",
        id="a-1_b",
        created_at=datetime(1969, 7, 20, 20, 17, tzinfo=UTC),
        eta=datetime(2024, 3, 1, tzinfo=UTC),
        expires=datetime(2024, 3, 2, 0, 0, 0, 5, tzinfo=UTC),
    ),
}


def test_the_golden_files_are_all_compared():
    """A file that no test reads pins nothing."""
    files = {path.stem for path in GOLDEN.glob("envelope_v1_*.json")}

    assert files == {f"envelope_v1_{name}" for name in REQUESTS}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_bytes_of_version_1_are_pinned(name):
    """C5: what this version writes, every later version of it reads."""
    golden = (GOLDEN / f"envelope_v1_{name}.json").read_bytes()

    assert encode(REQUESTS[name]) == golden


@pytest.mark.parametrize("name", REQUESTS)
def test_the_golden_files_are_read(name):
    """Each field arrives equal, but for what concerns only the caller."""
    golden = (GOLDEN / f"envelope_v1_{name}.json").read_bytes()

    found = decode(golden)

    assert found == REQUESTS[name].replace(deadline=None, deduplicate=False)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_decoded_envelope_encodes_to_the_same_bytes(name):
    """An adapter may decode, look and pass on."""
    body = encode(REQUESTS[name])

    assert encode(decode(body)) == body


def test_a_task_s_requests_are_encoded_like_others(send_welcome):
    """The part that is encoded once for all requests of a task changes no byte."""
    by_task = send_welcome.options(queue="mail", priority=3).request(1, locale="de")
    by_hand = DispatchRequest.model_validate(by_task.model_dump())

    assert encode(by_hand) == encode(by_task)


def test_envelopes_are_plain_json():
    """Any reader in any language gets along with it."""
    body = encode(REQUESTS["fullest"])

    values = json.loads(body)

    assert values["version"] == 1
    assert values["payload"]["big"] == 2**80
    assert list(values)[:2] == ["version", "task"]


def test_the_order_of_keys_and_blanks_do_not_matter():
    """An envelope that somebody else's JSON library wrote is read as well."""
    values = dict(reversed(json.loads(encode(REQUESTS["fullest"])).items()))

    body = json.dumps(values, indent=2).encode()

    assert decode(body) == decode(encode(REQUESTS["fullest"]))
    assert task_name(body) == "shop.send_welcome"


@pytest.mark.parametrize("name", ["shop.send", "ü.é", "a/b:c", "日本"])
def test_the_task_is_found_without_reading_the_rest(name):
    """The name stands at the beginning, whatever its characters."""
    body = encode(DispatchRequest(task=name))

    assert task_name(body) == name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"version":1}',
        b'{"version":1,"task":"\xff"}',
        b'{"version":0,"task":"t","id":"a","created_at":"2024-01-01T00:00:00Z","payload":{}}',
        b'{"version":"2","task":"t"}',
        b'{"version":1,"task":"t","id":"a","created_at":"2024-01-01T00:00:00","payload":{}}',
        b'{"version":1,"task":"t","id":"a","created_at":"0001-01-01T00:00:00+10:00","payload":{}}',
        b'{"version":1,"task":"t","id":"a","created_at":"2024-01-01T00:00:00Z","payload":[]}',
        b'{"version":1,"task":"t","payload":{"a":NaN}}',
        b'{"version":1,"task":"t","payload":{},"extra":1}',
        b'{"version":1,"task":"t","payload":{},"priority":true}',
        b'{"version":1,"task":"t","payload":{},"delay":"-PT1S"}',
        b'{"version":1,"task":"t","payload":{},"headers":{"a":1}}',
        b"[" * 100_000,
        b'{"version":' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: body[:60],
)
def test_what_is_no_envelope_is_refused(body):
    """Whatever stands in a queue, the error is ours and says where, never what."""
    with pytest.raises(EnvelopeError) as caught:
        decode(body)

    assert not isinstance(caught.value, NewerEnvelopeError)
    assert str(caught.value).startswith("no envelope: ")


def test_an_envelope_s_error_never_quotes_it():
    """C4: the payload stays out of messages."""
    body = b'{"version":1,"task":"t","payload":{"a":"s3cret","b":NaN},"queue":["s3cret"]}'

    with pytest.raises(EnvelopeError) as caught:
        decode(body)

    assert "s3cret" not in str(caught.value)


def test_a_newer_envelope_is_told_apart():
    """C11: it is not nonsense, but this worker is too old for it."""
    newer = encode(REQUESTS["fullest"]).replace(b'"version":1', b'"version":2', 1)

    with pytest.raises(NewerEnvelopeError, match=r"version 2.* upgrade the worker"):
        decode(newer)
    with pytest.raises(NewerEnvelopeError):
        task_name(newer)


def test_a_newer_envelope_may_have_other_fields():
    """The version counts, not what does not fit first."""
    with pytest.raises(NewerEnvelopeError):
        decode(b'{"version":3,"work":"t","arguments":[1,2]}')


def test_what_concerns_only_the_caller_does_not_travel():
    """A worker has no use for the deadline of handing over."""
    values = json.loads(encode(REQUESTS["fullest"]))

    assert values.keys().isdisjoint({"deadline", "deduplicate"})


def test_fields_that_are_not_given_do_not_travel():
    """An envelope is as small as its request."""
    values = json.loads(encode(DispatchRequest(task="t", headers={}, context={}, payload={})))

    assert set(values) == {"version", "task", "id", "created_at", "payload"}


def test_an_argument_that_is_none_travels():
    """None is a value: what is absent gets the worker's default, None does not."""
    request = DispatchRequest(task="t", payload={"a": None})

    assert decode(encode(request)).payload == {"a": None}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_worker_reads_what_decode_reads(name):
    """The reader that validates envelope and arguments together takes every envelope."""
    seen = []

    @task(name="shop.send_welcome")
    def send_welcome(
        none: None = None,
        text: str = "",
        big: int = 0,
        float: float = 0.0,  # noqa: A002 - the golden file's
        deep: list[dict[str, list[bool | list[int]]]] = [],  # noqa: B006
    ) -> None:
        seen.append((text, big))

    at = datetime.now(UTC)
    request = REQUESTS[name].replace(created_at=at, expires=None, delay=None, eta=None)

    outcome = run_envelope(encode(request))

    assert outcome.ok, outcome
    assert seen == [(request.payload.get("text", ""), request.payload.get("big", 0))]
