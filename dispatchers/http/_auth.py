"""Authentication of requests: results, and shared secrets."""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple, Protocol

from pydantic import SecretStr

from dispatchers.http._request import Request

__all__ = ["GRANTED", "AuthResult", "Secrets", "Verifier", "bearer", "refused", "unavailable"]

MAX_TOKEN = 16 * 1024
"""Characters of a credential that is looked at; Google's tokens have about 1 000."""


class AuthResult(NamedTuple):
    """The answer of a verifier."""

    granted: bool
    reason: str = ""
    """For the log, one of a few; never a credential."""
    detail: str = ""
    """For the log besides: values that were expected and received."""
    retry_after: float | None = None
    """Set where it cannot be told now: seconds until it is worth another try."""
    replay_id: str | None = None
    """The id that must not be settled twice."""
    good_until: float = 0.0
    """With `replay_id`, the end of the time in which it could be sent again: epoch seconds."""


GRANTED = AuthResult(granted=True)


def refused(reason: str, detail: str = "") -> AuthResult:
    """Return the result for a request that is not trusted."""
    return AuthResult(granted=False, reason=reason, detail=detail)


def unavailable(reason: str, retry_after: float) -> AuthResult:
    """Return the result for a request that cannot be verified now."""
    return AuthResult(granted=False, reason=reason, retry_after=retry_after)


class Verifier(Protocol):
    """One way to be trusted."""

    def verify(self, request: Request) -> AuthResult | None:
        """Verify a request; None if it has no credentials of this kind."""
        ...


def bearer(request: Request) -> str | None:
    """Return the credential behind `Authorization: Bearer`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN:
        return None
    return token.strip()


class Secrets:
    """Shared secrets, all of them compared, each in constant time."""

    def __init__(self, secrets: tuple[SecretStr, ...]) -> None:
        self._digests = [_digest(each.get_secret_value()) for each in secrets]

    def verify(self, request: Request) -> AuthResult | None:
        """Verify `Authorization: Bearer SECRET`."""
        if (token := bearer(request)) is None:
            return None
        given = _digest(token)
        found = False
        for each in self._digests:
            found |= hmac.compare_digest(given, each)
        return GRANTED if found else refused("an unknown secret")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
