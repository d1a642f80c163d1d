"""An issuer's keys: fetched within bounds, kept for a while, fetched again for an unknown id."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from dispatchers._fork import renew_after_fork
from dispatchers._log import say

from ._fetch import fetched
from ._settings import OidcSettings

__all__ = ["Keys", "KeysUnavailableError", "UnknownKeyError"]

SMALLEST = 2048
"""Bits of an RSA key; smaller ones can be broken."""
MOST = 100
"""Keys of one document that are looked at."""


class KeysUnavailableError(Exception):
    """The keys cannot be had now, so nobody can tell whether a token is good."""


class UnknownKeyError(Exception):
    """The issuer has no key of that id."""


class Keys:
    """The RSA keys behind a URL, by id.

    They are good for a lifetime. An id that is not among them has them fetched again, unless that
    was done just now: whoever makes up ids causes no more fetches than one in `refresh_floor`.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._keys: Mapping[str, object] = {}
        self._good_until = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def is_at_hand(self, key_id: str) -> bool:
        """Whether `get` answers without a fetch."""
        return self._known(key_id) is not None

    def get(self, key_id: str) -> object:
        """The key of that id; waits for a fetch if need be.

        Raises:
            UnknownKeyError: There is none.

            KeysUnavailableError: They cannot be fetched.
        """
        if (found := self._known(key_id)) is not None:
            return found
        if not self._lock.acquire(timeout=self._settings.fetch_timeout):
            raise KeysUnavailableError("another request waits for the keys")
        try:
            return self._after_fetch(key_id)
        finally:
            self._lock.release()

    def _known(self, key_id: str) -> object | None:
        return self._keys.get(key_id) if monotonic() < self._good_until else None

    def _after_fetch(self, key_id: str) -> object:
        if (found := self._known(key_id)) is not None:
            return found
        if monotonic() >= self._tried_at + self._settings.refresh_floor:
            self._fetch()
        if self._failed or monotonic() >= self._good_until:
            raise KeysUnavailableError("the issuer's keys could not be fetched")
        if (found := self._keys.get(key_id)) is None:
            raise UnknownKeyError("the issuer has no such key")
        return found

    def _fetch(self) -> None:
        settings = self._settings
        try:
            keys = _read(fetched(settings.keys_url, settings.fetch_timeout))
        except Exception as exc:  # noqa: BLE001 - a network, and what others write
            self._failed = True
            say(
                logging.ERROR,
                "endpoint: the keys at %s could not be fetched: %s",
                settings.keys_url,
                type(exc).__name__,
            )
        else:
            self._keys, self._failed = keys, False
            self._good_until = monotonic() + settings.keys_lifetime
        self._tried_at = monotonic()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def _read(document: bytes) -> dict[str, object]:
    """The usable keys of a JWKS document.

    Raises:
        ValueError: There are none.
    """
    entries: Any = json.loads(document)["keys"]
    known = [(entry["kid"], found) for entry in entries[:MOST] if (found := _key(entry))]
    if not known:
        raise ValueError("no usable keys in the document")
    return dict(known)


def _key(entry: Any) -> object | None:
    """An RSA key that signs; None for whatever else stands there."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    try:
        fits = (
            entry["kty"] == "RSA"
            and isinstance(entry["kid"], str)
            and entry.get("use", "sig") == "sig"
            and entry.get("alg", "RS256") == "RS256"
        )
        key = PyJWK.from_dict(entry, algorithm="RS256").key if fits else None
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return key if isinstance(key, RSAPublicKey) and key.key_size >= SMALLEST else None
