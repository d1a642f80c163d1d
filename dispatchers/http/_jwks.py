"""An issuer's keys: fetched within bounds, kept for a while, fetched again for an unknown id."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from dispatchers._runtime.fork import renew_after_fork
from dispatchers._runtime.log import say_once
from dispatchers.http._fetch import fetched
from dispatchers.http._settings import OidcSettings

__all__ = ["Keys", "KeysUnavailableError", "UnknownKeyError"]

SMALLEST = 2048
"""Bits of an RSA key; smaller ones can be broken."""


MAX_KEYS = 100
"""Keys of one document that are looked at."""
REFRESH_BELOW = 0.2
"""The part of their lifetime that is left when the keys are fetched again."""
THREAD = "dispatchers-keys"


class KeysUnavailableError(Exception):
    """The keys cannot be had now, so that no token can be verified."""


class UnknownKeyError(Exception):
    """The issuer has no key of that id."""


class Keys:
    """The RSA keys behind a URL, by id.

    They are good for a lifetime, and fetched again in the background towards its end. An id that
    is not among good keys has them fetched again, once in `refresh_floor` and by one request at a
    time: made-up ids cost no more, and a request with a known id never waits for them.
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
        """Return whether `get` answers without a fetch."""
        return self._known(key_id) is not None or (self._are_good and not self._may_fetch)

    def get(self, key_id: str) -> object:
        """Return the key of that id; waits for a fetch if need be.

        Raises:
            UnknownKeyError: There is none.

            KeysUnavailableError: They cannot be fetched.
        """
        if (found := self._known(key_id)) is not None:
            self._refresh_if_old()
            return found
        # With good keys one request at a time waits for an unknown id; the others come again.
        timeout = 0.0 if self._are_good else self._settings.fetch_timeout
        # The lock makes one request fetch for all: a burst after a key rotation costs one fetch.
        if not self._lock.acquire(timeout=timeout):
            raise KeysUnavailableError("another request waits for the keys")
        try:
            return self._after_fetch(key_id)
        finally:
            self._lock.release()

    @property
    def _are_good(self) -> bool:
        return monotonic() < self._good_until

    @property
    def _may_fetch(self) -> bool:
        return monotonic() >= self._tried_at + self._settings.refresh_floor

    def _known(self, key_id: str) -> object | None:
        return self._keys.get(key_id) if self._are_good else None

    def _after_fetch(self, key_id: str) -> object:
        if (found := self._known(key_id)) is not None:
            return found
        if self._may_fetch:
            self._fetch()
        if self._failed or not self._are_good:
            raise KeysUnavailableError("the issuer's keys could not be fetched")
        if (found := self._keys.get(key_id)) is None:
            raise UnknownKeyError("the issuer has no such key")
        return found

    def _refresh_if_old(self) -> None:
        """Fetch again in the background before the keys run out, so that no request waits."""
        left = self._good_until - monotonic()
        if left > self._settings.keys_lifetime * REFRESH_BELOW or not self._may_fetch:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._tried_at = monotonic()
                threading.Thread(target=self._refresh, name=THREAD, daemon=True).start()
            # No thread could be started: the lock must not stay with one that never ran.
            except BaseException:
                self._lock.release()
                raise

    def _refresh(self) -> None:
        try:
            self._fetch()
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        settings = self._settings
        try:
            keys = _read(fetched(settings.keys_url, settings.fetch_timeout))
        except Exception as exc:  # noqa: BLE001 - a network, and what others write
            self._failed = True
            say_once(
                self,
                logging.ERROR,
                "endpoint: the keys at %s could not be fetched: %s",
                settings.keys_url,
                type(exc).__name__,
            )
        else:
            self._keys, self._failed = keys, False
            # On the monotonic clock: setting the wall clock changes nothing.
            self._good_until = monotonic() + settings.keys_lifetime
        self._tried_at = monotonic()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def _read(document: bytes) -> dict[str, object]:
    """Return the usable keys of a JWKS document.

    Raises:
        ValueError: There are none.
    """
    entries: Any = json.loads(document)["keys"]
    known = [(entry["kid"], found) for entry in entries[:MAX_KEYS] if (found := _key(entry))]
    if not known:
        raise ValueError("no usable keys in the document")
    return dict(known)


def _key(entry: Any) -> object | None:
    """Return an RSA key that signs; None for any other entry."""
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
