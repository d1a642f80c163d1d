"""From a request to a job of RQ's, and back.

The envelope is in a field of its own beside RQ's, so that RQ's tools, which show a job's arguments,
have none to show. The job's function is `dispatchers_rq.run.` and the task's name, which RQ's
workers resolve to `run`, and which its tools show.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil
from typing import Any

from dispatchers import DispatchRequest
from dispatchers.native import arguments, is_native

ATTEMPT, DELIVERIES = "dispatchers_attempt", "dispatchers_deliveries"
LETTER, KEY, LIMIT = "dispatchers_letter", "dispatchers_key", "dispatchers_limit"
BODY, DIGEST, KIND = "dispatchers_body", "dispatchers_digest", "dispatchers_kind"
RUNNER = "dispatchers_rq.run"
"""The function path of each of our jobs; a task's name may follow."""
MARK = "dispatchers"
"""A field by which our workers differ from RQ's own."""
RQ_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
"""The ids that RQ takes; https://github.com/rq/rq/blob/v2.12/rq/job.py (`_validate_job_id`)."""
UNREADABLE_RETRIES = 1_000_000
"""RQ's own workers with another serializer fail a job that they cannot read. A job with retries
left is scheduled again instead, until a worker takes it that can read it."""


def queue_key(queue: str) -> str:
    """Return the key of the list of a queue's job ids."""
    return f"rq:queue:{queue}"


def job_key(job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"rq:job:{job_id}"


def registry_key(kind: str, queue: str) -> str:
    """Return the key of a set of job ids: `scheduled`, `failed`, `finished` or `wip`."""
    return f"rq:{kind}:{queue}"


def leases_key(queue: str) -> str:
    """Return the key of a queue's leases: job id to token and number of renewals."""
    return f"rq:dispatchers:leases:{queue}"


def id_of(request: DispatchRequest) -> str:
    """Return the job's id, of the characters that RQ takes."""
    # Kept where possible: operators look for a request's id in RQ's own tools.
    if RQ_ID.fullmatch(request.id):
        return request.id
    return sha256(request.id.encode()).hexdigest()


def key_of(request: DispatchRequest) -> str:
    """Return the key that names the job of an idempotency key; empty without one."""
    if request.idempotency_key is None:
        return ""
    return f"rq:dispatchers:key:{request.key_digest}"


def digest_of(request: DispatchRequest) -> str:
    """Return a digest of the payload, by which other work under the same key is recognised."""
    # Sorted: the same arguments in another order are the same work.
    text = json.dumps(dict(request.payload), sort_keys=True)
    return sha256(text.encode()).hexdigest()[:32]


def stamp() -> str:
    """Return the time as RQ writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def failure_text(words: str) -> str:
    """Return the reason of a failure as RQ keeps it beside the job."""
    return b64encode(zlib.compress(words.encode())).decode()


def script_args(
    request: DispatchRequest, body: bytes, queue: str, *, declared: bool, serializer: str
) -> tuple[Any, ...]:
    """Return a job as RQ writes it, as the script's arguments.

    The data is not compressed, which RQ reads as well; nothing of it is in the description.
    """
    key, due, now = key_of(request), request.due, stamp()
    # Only work under a key is ever compared, so that other work does not pay for the hash.
    digest = digest_of(request) if key else ""
    native = is_native(request)
    fields: dict[str, Any] = {
        "created_at": now,
        "enqueued_at": now,
        "origin": queue,
        "description": request.task,
        "status": "queued" if due is None else "scheduled",
        **(_native(request, serializer) if native else _ours(request, body, serializer)),
        **({KEY: key, DIGEST: digest} if key else {}),
    }
    when = "" if due is None else due.timestamp()
    # An envelope is kept beyond its expiry: our worker reports it as expired.
    ttl = _ttl(request) if native else 0
    flat = (part for field in fields.items() for part in field)
    return (id_of(request), queue, int(declared), when, key, digest, ttl, *flat)


def _ours(request: DispatchRequest, body: bytes, serializer: str) -> dict[str, Any]:
    limit = request.time_limit
    return {
        "data": data_of(request.task, serializer),
        BODY: body,
        ATTEMPT: 1,
        # RQ takes whole seconds, and 180 where nothing is said: up, so that it never cuts a run
        # short. The exact limit stands beside it.
        "timeout": -1 if limit is None else ceil(limit),
        "retries_left": UNREADABLE_RETRIES,
        "retry_intervals": "[1]",
        **({} if limit is None else {LIMIT: limit}),
    }


def data_of(task: str, serializer: str) -> bytes:
    """Return a job's data: our function under the task's name, without arguments.

    As a pickle it is written by hand: a tuple of text, None, an empty tuple and an empty
    dict, in protocol 2. Nothing is pickled.
    """
    path = f"{RUNNER}.{task}"
    if serializer == "json":
        return json.dumps([path, None, [], {}]).encode()
    text = path.encode()
    return b"\x80\x02(X" + len(text).to_bytes(4, "little") + text + b"N)}t."


def _native(request: DispatchRequest, serializer: str) -> dict[str, Any]:
    args, kwargs = arguments(request)
    call = [request.task, None, args, kwargs]
    fields: dict[str, Any] = {"data": _dumped(call, serializer)}
    if request.time_limit is not None:
        fields["timeout"] = ceil(request.time_limit)
    if ttl := _ttl(request):
        fields["ttl"] = ttl
    return fields


def _dumped(call: list[Any], serializer: str) -> str | bytes:
    if serializer == "json":
        return json.dumps(call)
    # Late: only queues of pickled jobs need it.
    from rq.serializers import DefaultSerializer

    data: bytes = DefaultSerializer.dumps(tuple(call))  # of values that JSON has
    return data


def _ttl(request: DispatchRequest) -> int:
    """Return the seconds until RQ forgets a native job that was not begun; 0 is never."""
    if request.expires_at is None:
        return 0
    # At least 1, as 0 would keep it for ever.
    return max(1, ceil((request.expires_at - datetime.now(UTC)).total_seconds()))


def body_of(fields: Mapping[bytes, bytes]) -> bytes:
    """Return the envelope in a job's hash; 0.1.0 had it as the argument.

    Raises:
        ValueError: There is none.
    """
    if (body := fields.get(BODY.encode())) is not None:
        return body
    call = json_call(fields.get(b"data", b""))
    if call is None or not call[2] or not isinstance(call[2][0], str):
        raise ValueError("no envelope in the job")
    return str(call[2][0]).encode()


def json_call(data: bytes) -> list[Any] | None:
    """Return function, instance, arguments by position and by name; None for other formats."""
    # Any client of this Redis may have written it: nesting too deep for the parser is no reason to
    # fail.
    with suppress(ValueError, RecursionError):
        call: object = json.loads(uncompressed(data))
        if isinstance(call, list) and [*map(type, call)][2:] == [list, dict]:
            return call
    return None


def uncompressed(data: bytes) -> bytes:
    """Return a job's data; RQ compresses it, this adapter does not."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def kind_of(data: bytes) -> str:
    """Return the serializer of a job of RQ's own: `json`, `pickle` or `other`."""
    if json_call(data) is not None:
        return "json"
    # Every pickle since protocol 2 begins with this byte, which no JSON text does.
    return "pickle" if uncompressed(data).startswith(b"\x80") else "other"


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """Return a hash from a script's reply."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
