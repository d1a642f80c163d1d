"""The worker's route in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from fastapi import Depends
from fastapi.params import Depends as Dependency
from fastapi.security import APIKeyHeader, HTTPBearer

from dispatchers import DispatchRequest, Reason
from dispatchers.http import EndpointSettings

__all__ = ["described"]

Schema = dict[str, Any]

LOCAL = ("deadline", "deduplicate")
"""Fields that concern only the sender, and do not travel."""
REQUIRED = ["version", "task", "id", "created_at", "payload"]
"""Fields that every envelope has."""
RETRY_AFTER: Schema = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
}


def described(settings: EndpointSettings) -> dict[str, Any]:
    """Arguments for a route: its body, its answers, and who may call it."""
    return {
        "summary": "Run a piece of work",
        "description": "Called by a queue. The queue redelivers depending on the status.",
        "operation_id": "dispatchers_run",
        "tags": ["dispatchers"],
        "responses": _responses(settings),
        "dependencies": _schemes(settings),
        "openapi_extra": {"requestBody": _body()},
    }


def _body() -> Schema:
    # From the model itself, so that the document cannot lag behind the envelope.
    schema = DispatchRequest.model_json_schema()
    definitions = schema.pop("$defs")
    for name in LOCAL:
        del schema["properties"][name]
    schema["properties"]["headers"]["additionalProperties"] = {"type": "string"}
    schema |= {"description": "An envelope: one piece of work.", "required": REQUIRED}
    inlined = _inlined(schema, definitions)
    return {"required": True, "content": {"application/json": {"schema": inlined}}}


def _inlined(value: object, definitions: Schema) -> object:
    """References would be looked for in the document's own components."""
    if isinstance(value, list):
        return [_inlined(each, definitions) for each in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    table = cast("Schema", value)
    if "$ref" in table:
        return _inlined(definitions[table["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(each, definitions) for key, each in table.items()}


def _responses(settings: EndpointSettings) -> dict[int | str, Schema]:
    final = settings.transport == "plain"  # where 4xx is final, a push queue wants 2xx
    found: dict[int | str, Schema] = {204: {"description": "It ran, to its end."}}
    for status, text in {**SETTLED, **({422: DEAD} if final else {})}.items():
        found[status] = _answer(text, OUTCOME)
    for status, text in AGAIN.items():
        found[status] = {**_answer(text, {"anyOf": [OUTCOME, ERROR]}), "headers": RETRY_AFTER}
    for status, text in REFUSED.items():
        found[status] = _answer(text, ERROR)
    return found


DEAD = "It failed permanently."
SETTLED = {200: "Settled: a duplicate, expired or discarded work, or work that failed permanently."}
AGAIN = {
    409: "Another worker is running it: deliver it again.",
    429: "The task asks for a pause: deliver it again.",
    500: "It failed, or the worker did: deliver it again.",
    503: "It cannot run now: deliver it again.",
}
REFUSED = {
    400: "The body was cut short.",
    401: "Not trusted.",
    404: "This process is not a worker.",
    413: "The body is too large.",
    415: "The body is not sent as JSON, or compressed.",
}


def _object(name: str, value: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


OUTCOME = _object("outcome", {"type": "string", "enum": [reason.value for reason in Reason]})
ERROR = _object("error", {"type": "string"})


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _answer(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": _json(schema)}


def _schemes(settings: EndpointSettings) -> Sequence[Dependency]:
    """Return schemes that only describe: the endpoint refuses by itself."""
    found: list[Dependency] = []
    if settings.secrets or settings.oidc:
        about = "A shared secret, or an OIDC token."
        # `auto_error` would have FastAPI refuse what the endpoint accepts by another of its checks.
        found.append(Depends(HTTPBearer(description=about, auto_error=False)))
    if settings.signatures:
        about = "A signature over the body, as Standard Webhooks writes it."
        scheme = APIKeyHeader(name="webhook-signature", description=about, auto_error=False)
        found.append(Depends(scheme))
    return found
