"""An issuer of OIDC tokens on this machine: it signs what it is told, and misbehaves on request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

__all__ = ["AUDIENCE", "EMAIL", "Issuer", "rsa_key"]

AUDIENCE = "https://worker.shop.example"
EMAIL = "tasks@shop.iam.gserviceaccount.com"
ISSUER = "https://accounts.google.com"
Mood = Literal["well", "down", "error", "slow", "drip", "huge", "garbage", "redirect", "empty"]


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """A throwaway key by name: making one takes a while."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """Signs tokens, and serves its keys as a JWKS document on the loopback interface.

    Attributes:
        mood: How the key server behaves.

        fetches: How often the keys were asked for.

        keys: The private keys that it has, by id; the last one signs.
    """

    def __init__(self) -> None:
        self.mood: Mood = "well"
        self.fetches = 0
        self.keys = {"one": rsa_key("one")}
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    @property
    def keys_url(self) -> str:
        """Return the address of the keys."""
        return f"http://127.0.0.1:{self._server.server_port}/keys"

    def close(self) -> None:
        """Stop serving."""
        # First: answers that are slow on purpose must not delay the end.
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rotate(self, name: str) -> None:
        """Sign with a new key from now on; the ones before are withdrawn."""
        self.keys = {name: rsa_key(name)}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims as Google's tokens have them; a change to None leaves one out."""
        now = int(time.time())
        whole = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "azp": "1234567890",
            "sub": "1234567890",
            "email": EMAIL,
            "email_verified": True,
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def token(
        self,
        *,
        key: Any = None,
        algorithm: str = "RS256",
        headers: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A signed token.

        Args:
            key: What to sign with, if not the issuer's newest key.

            algorithm: What to sign with it.

            headers: Of the token, beside the key's id.

            changes: Claims that differ; None leaves one out.
        """
        name, newest = list(self.keys.items())[-1]
        head = {"kid": name, **(headers or {})}
        signing = newest if key is None else key
        return jwt.encode(self.claims(**changes), signing, algorithm=algorithm, headers=head)

    def document(self) -> bytes:
        """The keys, as they are served."""
        keys = [
            {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}
            for name, key in self.keys.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def wait(self, seconds: float) -> None:
        """Wait, unless it is over."""
        self._over.wait(seconds)


def _handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.fetches += 1
            try:
                _answer(self, issuer)
            except OSError:  # the client has hung up
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
            """Say nothing."""

    return Handler


def _answer(request: BaseHTTPRequestHandler, issuer: Issuer) -> None:
    document = issuer.document()
    match issuer.mood:
        case "down":
            request.close_connection = True
        case "error":
            _send(request, document, status=500)
        case "redirect":
            request.send_response(302)
            request.send_header("Location", "/elsewhere")
            request.end_headers()
        case "slow":
            # On the event, so that the end of the test ends the wait.
            issuer.wait(20)
            _send(request, document)
        case "drip":
            _drip(request, issuer, document)
        case "huge":
            # Still valid JSON: only a limit on its size refuses it.
            _send(request, document[:-1] + b" " * 2**20 + b"}")
        case "garbage":
            _send(request, b"<html>" + document)
        case "empty":
            _send(request, b'{"keys": []}')
        case _:
            _send(request, document)


def _send(request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _drip(request: BaseHTTPRequestHandler, issuer: Issuer, body: bytes) -> None:
    """A byte now and then: no single wait is long."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    for at in range(len(body)):
        request.wfile.write(body[at : at + 1])
        request.wfile.flush()
        issuer.wait(0.05)
        if issuer._over.is_set():
            return
