"""Signed requests in the format of Standard Webhooks: HMAC-SHA256 over id, time and body.

https://github.com/standard-webhooks/standard-webhooks (version 1.0.0, 2026-11)
"""

from __future__ import annotations

import base64
import hmac
import re
import time

from pydantic import SecretStr

from dispatchers._models.envelope import read_header
from dispatchers.http._auth import AuthResult, refused
from dispatchers.http._request import Request

from ._settings import SignatureSettings, key_bytes

__all__ = ["Signatures", "sign"]

ID = re.compile(r"[A-Za-z0-9_\-:]{1,128}")
"""A stop in it would let id and time be parted differently."""
SECONDS = re.compile(r"[0-9]{1,12}")
MOST_SIGNATURES = 8


def sign(
    body: bytes,
    *,
    id: str,  # noqa: A002
    key: str,
    key_id: str | None = None,
    timestamp: int | None = None,
) -> dict[str, str]:
    """Return the headers that sign a body.

    Args:
        body: What will be sent.

        id: Identifies the message: the same for each delivery of it, no stop in it.

        key: `whsec_` and base64, or base64 alone.

        key_id: The id of the receiver's key; it tries all of them otherwise.

        timestamp: Seconds since the epoch; now, unless another instant is given.

    Raises:
        ValueError: The id or the key is not of that form.
    """
    if not ID.fullmatch(id):
        raise ValueError("an id has 1 to 128 letters, digits, and - _ :")
    seconds = str(int(time.time()) if timestamp is None else timestamp)
    found = _signature(key_bytes(SecretStr(key)), id, seconds, body)
    headers = {
        "webhook-id": id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{found}",
    }
    return headers if key_id is None else {**headers, "webhook-key-id": key_id}


def _signature(key: bytes, id_: str, seconds: str, body: bytes) -> str:
    digest = hmac.digest(key, f"{id_}.{seconds}.".encode() + body, "sha256")
    return base64.b64encode(digest).decode()


class Signatures:
    """Trusts signatures by one of the keys, for as long as they are good."""

    def __init__(self, settings: SignatureSettings) -> None:
        self._keys = {name: key_bytes(each) for name, each in settings.keys.items()}
        self._settings = settings

    def verify(self, request: Request) -> AuthResult | None:
        """Verify the `webhook-` headers."""
        given = request.headers.get("webhook-signature")
        if given is None:
            return None
        id_, seconds = (request.headers.get(f"webhook-{each}", "") for each in ("id", "timestamp"))
        if not (ID.fullmatch(id_) and SECONDS.fullmatch(seconds)):
            return refused("a malformed webhook-id or webhook-timestamp")
        signer = self._signer(given, id_, seconds, request)
        if signer is None:
            return refused("no signature of a known key")
        return self._in_time(int(seconds), f"{signer} {id_}", request.body)

    def _signer(self, given: str, id_: str, seconds: str, request: Request) -> str | None:
        """The id of the key that signed; two senders may use the same message ids."""
        claimed = [
            part.removeprefix("v1,").encode("utf-8", "surrogatepass")
            # Bounded: each of them is compared with the signature of every key.
            for part in given.split(" ")[:MOST_SIGNATURES]
            if part.startswith("v1,")
        ]
        found = None
        for name, key in self._candidates(request):
            expected = _signature(key, id_, seconds, request.body).encode()
            for each in claimed:
                # All are compared, in constant time: the time taken tells nothing about the keys.
                found = name if hmac.compare_digest(expected, each) else found
        return found

    def _candidates(self, request: Request) -> list[tuple[str, bytes]]:
        if (key_id := request.headers.get("webhook-key-id")) is None:
            return list(self._keys.items())
        return [(key_id, self._keys[key_id])] if key_id in self._keys else []

    def _in_time(self, seconds: int, replay_id: str, body: bytes) -> AuthResult:
        """Headers may be stored at dispatch time, and delivered when the work is due."""
        now = time.time()
        if seconds > now + self._settings.leeway:
            return refused("signed in the future")
        # The body is verified by now: only the signer can have put a due time into it.
        start = max(float(seconds), _due(body))
        until = start + self._settings.max_age
        if now > until:
            return refused("signed too long ago")
        return AuthResult(granted=True, replay_id=replay_id, good_until=until)


def _due(body: bytes) -> float:
    """Return when the signed envelope is due, seconds since the epoch; 0 if it does not say."""
    # A look at the bytes spares most requests a second parsing.
    if b'"delay"' not in body and b'"eta"' not in body:
        return 0.0
    try:
        return float(read_header(body)["due"].timestamp())
    except (OverflowError, RecursionError):
        return 0.0
