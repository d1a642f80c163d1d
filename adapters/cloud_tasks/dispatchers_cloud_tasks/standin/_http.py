"""HTTP side of the stand-in: its public keys, and control for callers with the token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from ._misbehaviour import Misbehaviour

__all__ = ["CERTS", "Controlled", "http_server"]

CERTS = "/certs"
ORDERS = "/misbehaviour"
BODY = 65536
"""Bytes of orders at most."""
NOTHING = {"error": f"there are GET /, GET {CERTS} and PUT {ORDERS}"}


class Controlled(Protocol):
    """The stand-in's control calls."""

    def jwks(self) -> Mapping[str, object]:
        """The keys."""
        ...

    def status(self) -> Mapping[str, object]:
        """Return the state as JSON."""
        ...

    def admits(self, authorization: str) -> bool:
        """Return true if a caller may ask for more than the keys."""
        ...

    def misbehave(self, orders: Misbehaviour, /) -> None:
        """Do something wrong from now on."""
        ...


class Server(ThreadingHTTPServer):
    """Its threads do not outlive the process."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], controlled: Controlled) -> None:
        self.controlled = controlled
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride] - the one that is made here
    timeout = 10

    def do_GET(self) -> None:
        """Keys, or the status."""
        if self.path == CERTS:
            self._say(200, self.server.controlled.jwks())
        elif self.path == "/" and self._is_admitted():
            self._say(200, self.server.controlled.status())
        else:
            self._say(404, NOTHING)

    def do_PUT(self) -> None:
        """Orders."""
        if self.path != ORDERS or not self._is_admitted():
            self._say(404, NOTHING)
            return
        try:
            # Never more than fits: reading to the end would wait for a client that sends nothing.
            size = min(int(self.headers.get("Content-Length") or 0), BODY)
            orders = Misbehaviour.model_validate_json(self.rfile.read(size))
        except ValueError as exc:
            self._say(400, {"error": str(exc)})
            return
        self.server.controlled.misbehave(orders)
        self._say(200, self.server.controlled.status())

    def _is_admitted(self) -> bool:
        return self.server.controlled.admits(self.headers.get("Authorization") or "")

    def _say(self, status: int, value: Mapping[str, object]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.path == CERTS:
            self.send_header("Cache-Control", "public, max-age=60")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        """Nothing to standard error."""


def http_server(controlled: Controlled, host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens, and serves once it is told to.

    Raises:
        OSError: The port is taken.
    """
    return Server((host, port), controlled)
