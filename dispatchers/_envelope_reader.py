"""One validator per task over envelope and arguments together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, Literal, NotRequired, cast

from pydantic import AwareDatetime, ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, from_json
from typing_extensions import TypedDict

from ._envelope import unreadable
from ._payload import PayloadCodec
from ._payload_schema import build_validator
from ._request import Attempts, Backoff, Key, Priority, QueueName, Seconds

__all__ = ["envelope_reader"]


class Envelope(TypedDict):
    """The envelope of version 1 as a worker reads it."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]

    version: Literal[1]
    task: str
    id: str
    created_at: AwareDatetime
    payload: dict[str, Any]
    fingerprint: NotRequired[str | None]
    queue: NotRequired[QueueName | None]
    delay: NotRequired[timedelta | None]
    eta: NotRequired[AwareDatetime | None]
    expires: NotRequired[timedelta | AwareDatetime | None]
    priority: NotRequired[Priority | None]
    time_limit: NotRequired[Seconds | None]
    max_attempts: NotRequired[Attempts | None]
    backoff: NotRequired[Backoff | None]
    idempotency_key: NotRequired[Key | None]
    headers: NotRequired[dict[str, str]]
    context: NotRequired[dict[str, JsonValue]]


@cache
def _plain() -> CoreSchema:
    return TypeAdapter(Envelope).core_schema


def _with_payload(arguments: CoreSchema) -> CoreSchema:
    whole = cast("dict[str, Any]", dict(_plain()))
    wrapped = whole["type"] == "definitions"
    envelope = whole["schema"] if wrapped else whole
    fields = dict(envelope["fields"])
    fields["payload"] = {**fields["payload"], "schema": arguments}
    envelope = {**envelope, "fields": fields}
    return cast("CoreSchema", {**whole, "schema": envelope} if wrapped else envelope)


def envelope_reader(codec: PayloadCodec) -> Callable[[bytes], dict[str, Any]]:
    """A function from the bytes of an envelope to its fields, the arguments typed.

    It raises `EnvelopeError`, or `PayloadError` where only the arguments do not fit.
    """
    validate = build_validator(_with_payload(codec.core_schema)).validate_json

    def read(body: bytes) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", validate(body))
        except ValidationError as exc:
            listed = exc.errors(include_url=False, include_context=False, include_input=False)
            if all(problem["loc"][:1] == ("payload",) for problem in listed):
                codec.decode_python(from_json(body)["payload"])
            raise unreadable(body, exc) from None

    return read
