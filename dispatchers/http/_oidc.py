"""OIDC tokens: RS256 and nothing else, for us, of an account on the list."""

from __future__ import annotations

import logging
from typing import Any

from dispatchers._errors import MissingDependencyError
from dispatchers._library import install, is_importable
from dispatchers._log import say

from ._call import Call
from ._keys import Keys, KeysUnavailableError, UnknownKeyError
from ._settings import OidcSettings
from ._verdict import GRANTED, Verdict, bearer, refused, unavailable

__all__ = ["Oidc"]

ALGORITHM = "RS256"
"""Fixed here: a token that could choose would choose badly."""
REQUIRED = ["exp", "iat", "aud", "iss"]


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
        import jwt

        self._jwt = jwt
        self._settings = settings
        self._keys = Keys(settings)
        self._emails = frozenset(email.lower() for email in settings.emails)

    def verify(self, call: Call) -> Verdict | None:
        """Judge a bearer token that has the form of a JWT."""
        token = bearer(call)
        if token is None or token.count(".") != 2:  # noqa: PLR2004 - head, claims, signature
            return None
        try:
            return self._judged(token)
        except KeysUnavailableError as exc:
            return unavailable(str(exc), self._settings.refresh_floor)
        except (UnknownKeyError, self._jwt.PyJWTError) as exc:
            return refused(type(exc).__name__)
        except Exception as exc:  # noqa: BLE001 - a token is anybody's; numbers out of range, say
            say(logging.WARNING, "endpoint: judging a token raised %s", type(exc).__name__)
            return refused(type(exc).__name__)

    def waits(self, call: Call) -> bool:
        """Whether the keys have to be fetched first."""
        token = bearer(call)
        if token is None or token.count(".") != 2:  # noqa: PLR2004 - head, claims, signature
            return False
        try:
            return not self._keys.is_at_hand(self._key_id(token))
        except Exception:  # noqa: BLE001 - `verify` says so
            return False

    def _key_id(self, token: str) -> str:
        header = self._jwt.get_unverified_header(token)
        if header.get("alg") != ALGORITHM:
            raise self._jwt.InvalidAlgorithmError("another algorithm")
        key_id = header.get("kid")
        if not isinstance(key_id, str):
            raise UnknownKeyError("no key id")
        return key_id

    def _judged(self, token: str) -> Verdict:
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
            return refused("an e-mail address that is not on the list")
        return GRANTED
