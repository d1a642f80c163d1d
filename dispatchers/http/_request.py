"""Requests as the endpoint reads them: few headers, their names in lower case."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, NamedTuple, cast

__all__ = [
    "Headers",
    "Request",
    "aread_limited",
    "count_of",
    "environ_headers",
    "known_headers",
    "path_within",
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


MAX_COUNT = 10**9
"""A header may hold any number of digits; more than this is beyond every limit."""
READ = frozenset(NAMES)


RAW = {name.encode(): name for name in NAMES}


BARE = ("content-length", "content-type")


OF_ENVIRON = tuple(
    (f"{'' if name in BARE else 'HTTP_'}{name.upper().replace('-', '_')}", name)
    for name in NAMES
)  # fmt: skip


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def path_within(path: str, mounted_at: str, own: str) -> str:
    """Return the path of a request as the endpoint knows its own.

    Args:
        path: The whole path, or the part below the mount; servers and routers differ.

        mounted_at: `root_path` or `SCRIPT_NAME`: what leads to the application.

        own: The endpoint's path.
    """
    mount = mounted_at.rstrip("/")
    below = "/" + path.removeprefix(mount).lstrip("/")
    whole = mount + below.rstrip("/")
    # A mount may have taken off a part of the endpoint's own path.
    within = whole.endswith(own) and mount.startswith(whole.removesuffix(own))
    return own if mounted_at and (below == own or within) else path


def known_headers(headers: Headers) -> dict[str, str]:
    """Return the headers that are read, whatever form a framework has them in."""
    pairs = cast("Mapping[str, str]", headers).items() if hasattr(headers, "items") else headers
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        if key in READ:
            found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def environ_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that are read, from a WSGI environment or Django's `request.META`."""
    return {name: environ[key] for key, name in OF_ENVIRON if key in environ}


def scope_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that are read, from an ASGI scope."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        if (name := RAW.get(raw)) is not None:
            # ASGI gives the bytes as sent; Latin-1 reads any of them, as WSGI servers do.
            text = value.decode("latin-1")
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def count_of(text: str, default: int) -> int:
    """Return the count in a header, `MAX_COUNT` at most; `default` for anything else."""
    if not (text.isascii() and text.isdigit()):
        return default
    # Counted before they are read: Python refuses to convert thousands of digits.
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < len(str(MAX_COUNT)) else MAX_COUNT


def read_limited(chunks: Iterable[bytes], limit: int) -> bytes:
    """Read a body, no further than a little beyond `limit` bytes."""
    whole = bytearray()
    for chunk in chunks:
        whole += chunk
        if len(whole) > limit:
            break
    return bytes(whole)


async def aread_limited(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """Read a body on an event loop, no further than a little beyond `limit` bytes."""
    whole = bytearray()
    async for chunk in chunks:
        whole += chunk
        if len(whole) > limit:
            break
    return bytes(whole)
