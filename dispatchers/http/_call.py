"""One request as the endpoint reads it: few headers, their names in lower case."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, NamedTuple, cast

__all__ = [
    "Call",
    "Headers",
    "aread_limited",
    "environ_headers",
    "known_headers",
    "read_limited",
    "scope_headers",
]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Names in any case; a name that stands twice counts as one with both values."""

NAMES = (
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "webhook-id",
    "webhook-key-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-cloudtasks-queuename",
    "x-cloudtasks-taskname",
    "x-cloudtasks-taskretrycount",
    "dispatchers-attempt",
)
"""The headers that are read."""
READ = frozenset(NAMES)
RAW = {name.encode(): name for name in NAMES}
BARE = ("content-length", "content-type")
OF_ENVIRON = tuple(
    (f"{'' if name in BARE else 'HTTP_'}{name.upper().replace('-', '_')}", name)
    for name in NAMES
)  # fmt: skip


class Call(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def known_headers(headers: Headers) -> dict[str, str]:
    """The headers that are read, whatever form a framework has them in."""
    pairs = cast("Mapping[str, str]", headers).items() if hasattr(headers, "items") else headers
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        if key in READ:
            found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def environ_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers that are read, out of a WSGI environment or Django's `request.META`."""
    return {name: environ[key] for key, name in OF_ENVIRON if key in environ}


def scope_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """The headers that are read, out of an ASGI scope."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        if (name := RAW.get(raw)) is not None:
            text = value.decode("latin-1")
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def read_limited(chunks: Iterable[bytes], limit: int) -> bytes:
    """A body, read no further than a little beyond `limit` bytes."""
    whole = bytearray()
    for chunk in chunks:
        whole += chunk
        if len(whole) > limit:
            break
    return bytes(whole)


async def aread_limited(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """`read_limited` for what arrives on an event loop."""
    whole = bytearray()
    async for chunk in chunks:
        whole += chunk
        if len(whole) > limit:
            break
    return bytes(whole)
