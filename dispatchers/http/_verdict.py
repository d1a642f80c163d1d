"""Whether a request comes from somebody who may push."""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple, Protocol

from pydantic import SecretStr

from ._call import Call

__all__ = ["GRANTED", "Secrets", "Verdict", "Verifier", "bearer", "refused", "unavailable"]

LONGEST_TOKEN = 16 * 1024
"""Characters of a credential that is looked at; Google's tokens have about 1 000."""


class Verdict(NamedTuple):
    """What a verifier says."""

    granted: bool
    why: str = ""
    """For the log; never what was sent."""
    retry_after: float | None = None
    """Set where nobody can tell now: seconds until it is worth another try."""
    replay_id: str | None = None
    """What must not be settled twice."""
    good_until: float = 0.0
    """With `replay_id`, until when it could be sent again: seconds since the epoch."""


GRANTED = Verdict(granted=True)


def refused(why: str) -> Verdict:
    """A request that is not trusted."""
    return Verdict(granted=False, why=why)


def unavailable(why: str, retry_after: float) -> Verdict:
    """Nobody can tell now."""
    return Verdict(granted=False, why=why, retry_after=retry_after)


class Verifier(Protocol):
    """One way to be trusted."""

    def verify(self, call: Call) -> Verdict | None:
        """Judge a request; None if it has no credentials of this kind."""
        ...


def bearer(call: Call) -> str | None:
    """The credential behind `Authorization: Bearer`."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= LONGEST_TOKEN:
        return None
    return token.strip()


class Secrets:
    """Shared secrets, compared in constant time; each of them, so that none can be told by time."""

    def __init__(self, secrets: tuple[SecretStr, ...]) -> None:
        self._digests = [_digest(each.get_secret_value()) for each in secrets]

    def verify(self, call: Call) -> Verdict | None:
        """Judge `Authorization: Bearer SECRET`."""
        if (token := bearer(call)) is None:
            return None
        given = _digest(token)
        found = False
        for each in self._digests:
            found |= hmac.compare_digest(given, each)
        return GRANTED if found else refused("an unknown secret")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
