"""Sending a request over a socket, just as it is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http.client import HTTPConnection
from typing import cast

from dispatchers.http import Answer
from dispatchers.http._request import Headers

__all__ = ["wire"]

PATIENCE = 60.0
"""Seconds for one exchange."""


def wire(host: str, port: int, method: str, path: str, headers: Headers, body: bytes) -> Answer:
    """Send one request over a connection of its own; headers may repeat a name."""
    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in [*_pairs(headers), ("Content-Length", str(len(body)))]:
            connection.putheader(name, value.encode("latin-1"))
        _send_body(connection, body)
        response = connection.getresponse()
        return Answer(response.status, tuple(response.getheaders()), response.read())
    finally:
        connection.close()


def _pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    mapping = hasattr(headers, "items")
    known = cast("Mapping[str, str]", headers).items() if mapping else headers
    return cast("Iterable[tuple[str, str]]", known)


def _send_body(connection: HTTPConnection, body: bytes) -> None:
    """A server may answer before it has read everything, and hang up."""
    try:
        connection.endheaders(body)
    except (BrokenPipeError, ConnectionResetError):
        return
