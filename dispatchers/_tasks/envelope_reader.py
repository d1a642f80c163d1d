"""One validator per task over envelope and arguments together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, Literal, NotRequired, cast

from pydantic import AwareDatetime, ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, SchemaError, from_json
from typing_extensions import TypedDict

from dispatchers._models.envelope import unreadable
from dispatchers._models.fields import Attempts, Key, Priority, QueueName, Seconds
from dispatchers._models.request import Backoff
from dispatchers._payload.codec import PayloadCodec
from dispatchers._payload.errors import DeclarationError
from dispatchers._payload.schema import build_validator
from dispatchers._payload.signature import UnresolvedError


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
def _plain() -> tuple[dict[str, Any], list[Any]]:
    """Return the envelope's schema, its definitions under names of their own."""
    # A task's own types may have definitions of the same names.
    whole: Any = _renamed(TypeAdapter(Envelope).core_schema)
    if whole["type"] == "definitions":
        return whole["schema"], whole["definitions"]
    return whole, []


def _renamed(node: Any) -> Any:
    """Copy a core schema, its references prefixed as the envelope's."""
    if isinstance(node, list | tuple):
        return type(node)(map(_renamed, node))
    if not isinstance(node, dict):
        return node
    return {
        key: f"envelope:{value}" if key in ("ref", "schema_ref") else _renamed(value)
        for key, value in node.items()
    }


def _with_payload(arguments: CoreSchema) -> CoreSchema:
    """Put the arguments' schema into the envelope's, definitions side by side.

    A validator refuses two definitions of one name, and both may hold `JsonValue`, say.
    """
    envelope, definitions = _plain()
    inner: Any = arguments
    if inner["type"] == "definitions":
        definitions, inner = [*definitions, *inner["definitions"]], inner["schema"]
    payload = {**envelope["fields"]["payload"], "schema": inner}
    whole = {**envelope, "fields": {**envelope["fields"], "payload": payload}}
    if not definitions:
        return cast("CoreSchema", whole)
    return cast("CoreSchema", {"type": "definitions", "schema": whole, "definitions": definitions})


def check_readable(codec: PayloadCodec) -> None:
    """Build all that reads a task's envelopes, unless an annotation cannot be resolved yet.

    Raises:
        DeclarationError: A worker could not read what the task's signature accepts.
    """
    try:
        codec.check()
        envelope_reader(codec)
    except UnresolvedError:
        return
    except SchemaError as exc:
        raise DeclarationError(
            "no worker could read these parameters: their types do not fit together"
        ) from exc


def envelope_reader(codec: PayloadCodec) -> Callable[[bytes], dict[str, Any]]:
    """Return a function that reads an envelope's fields, arguments typed.

    It raises `EnvelopeError`, or `PayloadError` where only the arguments do not fit.
    """
    schema = _with_payload(codec.core_schema)
    validate: Callable[[bytes], dict[str, Any]] = build_validator(schema).validate_json

    def read(body: bytes) -> dict[str, Any]:
        try:
            return validate(body)
        except ValidationError as exc:
            listed = exc.errors(include_url=False, include_context=False, include_input=False)
            # Once more for the arguments alone, whose errors name them as the task's author does.
            if all(problem["loc"][:1] == ("payload",) for problem in listed):
                codec.decode_python(from_json(body)["payload"])
            raise unreadable(body, exc) from None

    return read
