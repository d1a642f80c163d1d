"""From a request to a job of RQ's, and back."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from math import ceil
from typing import Any

from dispatchers import DispatchRequest

from ._keys import RUNNER, id_of, key_of

__all__ = [
    "ATTEMPT",
    "DELIVERIES",
    "LETTER",
    "LIMIT",
    "NATIVE",
    "body_of",
    "data_of",
    "fields",
    "script_args",
    "stamp",
    "why",
]

ATTEMPT, DELIVERIES = "dispatchers_attempt", "dispatchers_deliveries"
LETTER, KEY, LIMIT = "dispatchers_letter", "dispatchers_key", "dispatchers_limit"
NATIVE = "dispatchers_native"
"""The header of a request for one of RQ's own jobs; it does not travel."""


def stamp() -> str:
    """Now, as RQ writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def why(words: str) -> str:
    """Why a job has failed, as RQ keeps it beside the job."""
    return b64encode(zlib.compress(words.encode())).decode()


def script_args(
    request: DispatchRequest, body: bytes, queue: str, *, declared: bool
) -> tuple[Any, ...]:
    """What the script that dispatches is given: a job as RQ writes it, with RQ's JSON serializer.

    The data is not compressed, which RQ reads as well; nothing of it is in the description.
    """
    number, key, due = id_of(request), key_of(request), request.due
    is_native = NATIVE in request.headers
    given = _native(request) if is_native else _ours(request, body)
    now = stamp()
    values = (
        number,
        queue,
        int(declared),
        "" if due is None else due.timestamp(),
        key,
        _ttl(request) if is_native else 0,
        "created_at",
        now,
        "enqueued_at",
        now,
        "origin",
        queue,
        "description",
        request.task,
        "status",
        "queued" if due is None else "scheduled",
        *given,
    )
    return (*values, KEY, key) if key else values


def _ours(request: DispatchRequest, body: bytes) -> tuple[Any, ...]:
    limit = request.time_limit
    given = ("data", data_of(body), ATTEMPT, 1, "timeout")
    return (*given, -1) if limit is None else (*given, ceil(limit), LIMIT, limit)


def data_of(body: bytes) -> bytes:
    """A job's data: our function, and the envelope as its one argument."""
    return b'["%b",null,[%b],{}]' % (RUNNER.encode(), json.dumps(body.decode()).encode())


def _native(request: DispatchRequest) -> list[Any]:
    payload: Any = request.payload
    call = [request.task, None, list(payload["args"]), dict(payload["kwargs"])]
    given: list[Any] = ["data", json.dumps(call)]
    if request.time_limit is not None:
        given += ["timeout", ceil(request.time_limit)]
    if ttl := _ttl(request):
        given += ["ttl", ttl]
    return given


def _ttl(request: DispatchRequest) -> int:
    """Seconds until RQ forgets a job that nobody has begun; ours are judged by their envelope."""
    if request.expires_at is None:
        return 0
    return max(1, ceil((request.expires_at - datetime.now(UTC)).total_seconds()))


def body_of(fields: Mapping[bytes, bytes]) -> bytes:
    """The envelope in a job's hash.

    Raises:
        ValueError: There is none.
    """
    data = fields.get(b"data", b"")
    with suppress(zlib.error):  # not compressed, as we write it
        data = zlib.decompress(data)
    try:
        body: object = json.loads(data)[2][0]
    except (LookupError, TypeError) as exc:
        raise ValueError("no envelope in the job") from exc
    return str(body).encode()


def fields(flat: list[bytes]) -> dict[bytes, bytes]:
    """A hash from a script's reply."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
