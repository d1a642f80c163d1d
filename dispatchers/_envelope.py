"""The envelope: a request as JSON text, the same bytes on every backend.

The text begins with version and task, so that a reader finds the task without parsing the rest;
what is the same for all requests of a task with the same options is encoded once (`Head`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from ._capabilities import OPTIONS
from ._fork import before_fork
from ._model import EMPTY, JsonObject, build
from ._request import VERSION, DispatchRequest, new_id

__all__ = ["EnvelopeError", "Head", "NewerEnvelopeError", "decode", "encode", "task_name"]

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
    """The text is no envelope; the message says where, never what it holds."""


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
        """A new request of this head, its payload JSON text; nothing is validated again."""
        values = self.values.copy()
        values["id"] = new_id()
        values["created_at"] = datetime.now(UTC)
        values["payload"] = JsonObject(payload)
        return build(DispatchRequest, values, {"_head": self})


def _head_text(request: DispatchRequest) -> bytes:
    values = request.__dict__
    given = {name for name in HEAD if values[name] is not None and values[name] != EMPTY}
    rest = request.__pydantic_serializer__.to_json(request, include=given)
    start = b'{"version":%d,"task":"%b",' % (VERSION, request.task.encode())
    return start + (rest[1:-1] + b"," if given else b"")


def _needs(request: DispatchRequest) -> frozenset[str]:
    used = {name for name in OPTIONS if getattr(request, name)}
    return frozenset(used | {"delay"} if request.eta is not None else used)


def head(request: DispatchRequest) -> Head:
    """The head of a request, made now unless it came with one."""
    private = request.__pydantic_private__
    known: Head | None = None if private is None else private.get("_head")
    return Head(request) if known is None else known


def encode(request: DispatchRequest) -> bytes:
    """The envelope as UTF-8 JSON text; equal requests give equal bytes."""
    payload: JsonObject = request.payload  # type: ignore[assignment] # validated, or ours
    return b'%b"id":"%b","created_at":%b,"payload":%b}' % (
        head(request).text,
        request.id.encode(),
        to_json(request.created_at),
        payload.json,
    )


def decode(body: bytes | str) -> DispatchRequest:
    """The request in an envelope, its payload not yet matched with the task's signature.

    Raises:
        NewerEnvelopeError: It was written by a newer version.

        EnvelopeError: It is no envelope.
    """
    try:
        return DispatchRequest.model_validate_json(body)
    except ValidationError as exc:
        raise unreadable(body, exc) from None


def task_name(body: bytes) -> str:
    """The name of the task in an envelope.

    Raises:
        EnvelopeError: It is no envelope.
    """
    if found := START.match(body):
        try:
            return found[1].decode()
        except UnicodeDecodeError:
            pass  # then the rest is no JSON either, which `decode` says
    return decode(body).task


def unreadable(body: bytes | str, error: ValidationError) -> EnvelopeError:
    """What to raise for an envelope that did not validate."""
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


before_fork(lambda: decode(encode(DispatchRequest(task="dispatchers.fork"))))
