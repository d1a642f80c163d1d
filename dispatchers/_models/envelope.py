"""The envelope: a request as JSON text, the same bytes on every backend.

The text begins with version and task, so that a reader finds the task without parsing the rest;
what is the same for all requests of a task with the same options is encoded once (`Head`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from dispatchers._models.base import build
from dispatchers._models.capabilities import OPTIONS
from dispatchers._models.fields import Instant, Span, new_id
from dispatchers._models.json_object import EMPTY, JsonObject
from dispatchers._models.request import VERSION, DispatchRequest
from dispatchers._payload.unserializable import MAX_DEPTH
from dispatchers._runtime.clock import now

LATE = ConfigDict(defer_build=True)
"""Built on first use: most processes never meet what they do not understand."""


_instant: TypeAdapter[datetime] = TypeAdapter(Instant, config=LATE)


_span: TypeAdapter[timedelta] = TypeAdapter(Span, config=LATE)


def read_header(body: bytes) -> dict[str, Any]:
    """Task, id and due time, as far as they can be made out; newer envelopes may differ."""
    epoch = datetime.fromtimestamp(0, UTC)
    try:
        raw = from_json(body)
        created = _instant.validate_python(raw["created_at"])
        due = _instant.validate_python(raw.get("eta") or created)
        due += _span.validate_python(raw.get("delay") or timedelta())
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        return {"task": None, "id": None, "created": epoch, "due": epoch}
    known = {"task": _text(raw.get("task")), "id": _text(raw.get("id"))}
    return {**known, "created": created, "due": due}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


ENVELOPE_DEPTH = MAX_DEPTH + 10
"""Levels of an envelope: the deepest arguments, and what stands around them."""


VARYING = ("id", "created_at", "payload")


LOCAL = ("deadline", "deduplicate")
"""Fields that concern only the caller, and do not travel."""


HEAD = tuple(
    name
    for name in DispatchRequest.model_fields
    if name not in (*VARYING, *LOCAL, "version", "task")
)


START = re.compile(rb'\{"version":%d,"task":"([^"\\]+)"[,}]' % VERSION)


class EnvelopeError(ValueError):
    """The text is not an envelope; the message says where, never what it holds."""


class NewerEnvelopeError(EnvelopeError):
    """The envelope was written by a newer version of this library."""


class Head:
    """All of a request but id, time and payload: encoded once, used for many requests.

    Attributes:
        values: Every field of the request but the varying ones.

        text: Their JSON, up to the varying ones.

        needs: The options that a backend must support: `delay`, `priority` ...
    """

    __slots__ = ("needs", "text", "values")

    def __init__(self, request: DispatchRequest) -> None:
        self.values = {k: v for k, v in request.__dict__.items() if k not in VARYING}
        self.text = _head_text(request)
        self.needs = _needs(request)

    def request(self, payload: bytes) -> DispatchRequest:
        """Make a request of this head, its payload JSON text."""
        values = self.values.copy()
        values["id"] = new_id()
        values["created_at"] = now()
        values["payload"] = JsonObject(payload)
        return build(DispatchRequest, values, {"_head": self})

    def named(self, id: str, payload: bytes, headers: Mapping[str, str]) -> DispatchRequest:  # noqa: A002
        """Make a request with an id and headers of its own, known to be valid."""
        values = {**self.values, "id": id, "created_at": now(), "payload": JsonObject(payload)}
        values["headers"] = JsonObject(to_json(headers))
        request = build(DispatchRequest, values, private := {})
        private["_head"] = Head(request)
        return request


def _head_text(request: DispatchRequest) -> bytes:
    values = request.__dict__
    given = {name for name in HEAD if values[name] is not None and values[name] != EMPTY}
    rest = request.__pydantic_serializer__.to_json(request, include=given)
    start = b'{"version":%d,"task":"%b",' % (VERSION, request.task.encode())
    return start + (rest[1:-1] + b"," if given else b"")


def _needs(request: DispatchRequest) -> frozenset[str]:
    values = request.__dict__
    used = {name for name in OPTIONS if values[name]}
    return frozenset(used | {"delay"} if request.eta is not None else used)


def head(request: DispatchRequest) -> Head:
    """Return the head of a request, made now if need be."""
    private = request.__pydantic_private__
    known: Head | None = None if private is None else private.get("_head")
    return Head(request) if known is None else known


def encode(request: DispatchRequest, known: Head | None = None) -> bytes:
    """Encode a request as UTF-8 JSON text; equal requests give equal bytes."""
    payload: JsonObject = request.payload  # type: ignore[assignment] # validated, or ours
    return b'%b"id":"%b","created_at":%b,"payload":%b}' % (
        (known or head(request)).text,
        request.id.encode(),
        to_json(request.created_at),
        payload.json,
    )


def decode(body: bytes | str) -> DispatchRequest:
    """Read the request in an envelope, its payload not matched yet.

    Raises:
        NewerEnvelopeError: It was written by a newer version.

        EnvelopeError: It is not an envelope.
    """
    try:
        return DispatchRequest.model_validate_json(body)
    except ValidationError as exc:
        raise unreadable(body, exc) from None


def task_name(body: bytes) -> str:
    """Return the name of the task in an envelope.

    Raises:
        EnvelopeError: It is not an envelope.
    """
    # A match is enough: the codec that reads the rest checks the whole.
    if found := START.match(body):
        try:
            return found[1].decode()
        except UnicodeDecodeError:
            pass  # then the rest is not JSON either, which `decode` says
    return decode(body).task


def unreadable(body: bytes | str, error: ValidationError) -> EnvelopeError:
    """Return the error for an envelope that did not validate."""
    if (version := _version(body)) is not None and version > VERSION:
        return NewerEnvelopeError(
            f"envelope of version {version}, this worker reads up to {VERSION}: upgrade the worker"
        )
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return EnvelopeError(f"no envelope: {where}: {first['msg'].lower()}")


def _version(body: bytes | str) -> int | None:
    try:
        version = from_json(body)["version"]
    except (ValueError, TypeError, KeyError):
        return None
    return version if isinstance(version, int) else None
