"""OIDC tokens: RS256 and nothing else, for us, of an account on the list."""

from __future__ import annotations

import logging
from typing import Any

from dispatchers._errors import MissingDependencyError
from dispatchers._runtime.importing import install, is_importable
from dispatchers._runtime.log import say
from dispatchers._runtime.to_thread import Threads
from dispatchers.http._auth import GRANTED, AuthResult, bearer, refused, unavailable
from dispatchers.http._jwks import Keys, KeysUnavailableError, UnknownKeyError
from dispatchers.http._request import Request

from ._settings import OidcSettings

__all__ = ["Oidc"]

ALGORITHM = "RS256"
"""Fixed here: a token that could choose would choose badly."""
REQUIRED = ["exp", "iat", "aud", "iss"]
COMPARED = {
    "InvalidAudienceError": ("aud", "audience"),
    "InvalidIssuerError": ("iss", "issuer"),
}
"""Claims that are checked after the signature, and the options that they are compared with."""
MAX_SHOWN = 200
"""Characters of a received value in the log."""
MAX_WAITING = 4
"""Requests of an event loop that wait for keys at the same time; a fetch serves all of them."""


class Oidc:
    """Trusts tokens of the service accounts that are listed.

    Raises:
        MissingDependencyError: PyJWT is not installed.
    """

    def __init__(self, settings: OidcSettings) -> None:
        if not (is_importable("jwt") and is_importable("cryptography")):
            raise MissingDependencyError(
                f"endpoint.oidc needs PyJWT and cryptography: {install('dispatchers[oidc]')}"
            )
        # Here and not at the top: only endpoints with OIDC need PyJWT.
        import jwt

        self._jwt = jwt
        self._settings = settings
        self._keys = Keys(settings)
        # Compared in lower case, whatever the configuration and the issuer write.
        self._emails = frozenset(email.lower() for email in settings.emails)
        self.waiting = Threads(MAX_WAITING, "dispatchers-keys")
        """Threads on which requests of an event loop wait for keys."""

    def verify(self, request: Request) -> AuthResult | None:
        """Verify a bearer token that has the form of a JWT."""
        token = _jwt_of(request)
        if token is None:
            return None
        try:
            return self._verified(token)
        except KeysUnavailableError as exc:
            return unavailable(str(exc), self._settings.refresh_floor)
        except (UnknownKeyError, self._jwt.PyJWTError) as exc:
            return refused(type(exc).__name__, self._detail(token, type(exc).__name__))
        except Exception as exc:  # noqa: BLE001 - strangers write tokens; numbers out of range, say
            say(logging.WARNING, "endpoint: verifying a token raised %s", type(exc).__name__)
            return refused(type(exc).__name__)

    def waits(self, request: Request) -> bool:
        """Return whether the keys have to be fetched first."""
        token = _jwt_of(request)
        if token is None:
            return False
        try:
            return not self._keys.is_at_hand(self._key_id(token))
        except Exception:  # noqa: BLE001 - `verify` says so
            return False

    def _key_id(self, token: str) -> str:
        header = self._jwt.get_unverified_header(token)
        # Before a key is looked up: a token could otherwise choose HMAC with the public key.
        if header.get("alg") != ALGORITHM:
            raise self._jwt.InvalidAlgorithmError("another algorithm")
        key_id = header.get("kid")
        if not isinstance(key_id, str):
            raise UnknownKeyError("no key id")
        return key_id

    def _verified(self, token: str) -> AuthResult:
        settings = self._settings
        claims: dict[str, Any] = self._jwt.decode(
            token,
            self._keys.get(self._key_id(token)),  # type: ignore[arg-type] # an RSA key
            algorithms=[ALGORITHM],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway,
            options={"require": REQUIRED},
        )
        if claims.get("email_verified") is not True:
            return refused("an e-mail address that is not verified")
        email = claims.get("email")
        # Case beyond ASCII makes letters equal that are not the same: the sign for kelvin and k.
        if not isinstance(email, str) or not email.isascii() or email.lower() not in self._emails:
            detail = _compared("emails", settings.emails, email)
            return refused("an e-mail address that is not on the list", detail)
        return GRANTED

    def _detail(self, token: str, reason: str) -> str:
        """Return expected and received values, of tokens whose signature has been verified."""
        if reason not in COMPARED:
            return ""
        claim, option = COMPARED[reason]
        # Decoded again, because PyJWT's errors do not carry the claims.
        claims = self._jwt.decode(token, options={"verify_signature": False})
        return _compared(option, getattr(self._settings, option), claims.get(claim))


def _jwt_of(request: Request) -> str | None:
    """Return a bearer token of three parts: head, claims, signature."""
    token = bearer(request)
    return token if token is not None and token.count(".") == 2 else None  # noqa: PLR2004


def _compared(option: str, expected: tuple[str, ...], received: object) -> str:
    given = repr(received)
    if len(given) > MAX_SHOWN:
        given = f"{given[:MAX_SHOWN]}..."
    return f": endpoint.oidc.{option} expects {' or '.join(map(repr, expected))}, received {given}"
