"""OIDC tokens as Google's queue brings them, signed with the stand-in's own key."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, cast

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["Signer", "new_key"]

LIFETIME = 3600
"""Seconds that a token is good for: https://cloud.google.com/docs/authentication/token-types."""
BITS = 2048


def new_key() -> bytes:
    """An RSA key as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Signer:
    """Signs tokens with one key, and describes it for those who verify them.

    Args:
        pem: The private key.

        issuer: The claim `iss`.
    """

    def __init__(self, pem: bytes, issuer: str) -> None:
        self.issuer = issuer
        self._key = cast("rsa.RSAPrivateKey", serialization.load_pem_private_key(pem, None))
        digest = hashes.Hash(hashes.SHA256())
        digest.update(_number(self._key.public_key().public_numbers().n).encode())
        # Of the key itself: the id stays the same over restarts.
        self.key_id = digest.finalize().hex()[:40]

    def token(self, *, email: str, audience: str) -> str:
        """A token for a service account, valid for an hour from now."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "azp": _subject(email),
            "email": email,
            "email_verified": True,
            "exp": now + LIFETIME,
            "iat": now,
            "iss": self.issuer,
            "sub": _subject(email),
        }
        head = {"alg": "RS256", "kid": self.key_id, "typ": "JWT"}
        text = f"{_json(head)}.{_json(claims)}"
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_base64(signature)}"

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JSON Web Key."""
        public = self._key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "kid": self.key_id,
            "n": _number(public.n),
            "e": _number(public.e),
        }


def _subject(email: str) -> str:
    """A number, as service accounts have, the same for the same account."""
    return str(int.from_bytes(email.encode()[:9].ljust(9, b"\0"), "big")).zfill(21)


def _json(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(value: bytes) -> str:
    # RFC 7515: without padding.
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))
