"""Settings of the endpoint: the table `[endpoint]`."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from dispatchers._models.base import Model
from dispatchers._models.envelope import ENVELOPE_DEPTH
from dispatchers._models.fields import as_tuple
from dispatchers._models.options import OnHandlerError
from dispatchers._models.paths import StoreSpec
from dispatchers._models.redaction import secrets_of, without_secrets

__all__ = [
    "PATH",
    "EndpointPath",
    "EndpointSettings",
    "OidcSettings",
    "SignatureSettings",
    "WebAddress",
    "key_bytes",
]

PATH = "/dispatchers/run"
"""The endpoint's path, unless both sides are told otherwise."""
SHORTEST_SECRET = 16
"""Characters; fewer can be guessed."""
SHORTEST_KEY = 24
"""Bytes, the least that Standard Webhooks allows."""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SHORTEST_SECRET or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(
            f"a secret is at least {SHORTEST_SECRET} printable ASCII characters without blanks: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return value


def key_bytes(value: SecretStr) -> bytes:
    """Return the bytes of a key in the notation of Standard Webhooks.

    Raises:
        ValueError: It is not base64, or too short.
    """
    text = value.get_secret_value().removeprefix("whsec_")
    try:
        # Without `validate`, stray characters are skipped, and a mistyped key would be another key.
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a key is base64, with or without whsec_ before it") from None
    if len(found) < SHORTEST_KEY:
        raise ValueError(f"a key has at least {SHORTEST_KEY} bytes, not {len(found)}")
    return found


def _key(value: SecretStr) -> SecretStr:
    key_bytes(value)
    return value


def _web_address(value: str) -> str:
    """Return a URL with a scheme, a host and a port that can be reached.

    Raises:
        ValueError: It is none, or has a query, a fragment or credentials.
    """
    try:
        parts = urlsplit(value)
        complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port beyond 65535, or of brackets without an address
        parts, complete = urlsplit(""), False
    if not complete or any(mark.isspace() or not mark.isprintable() for mark in value):
        raise ValueError("should be a whole URL, such as https://worker.example.com")
    if "@" in parts.netloc or "#" in value:
        raise ValueError("should have no user name, password or fragment")
    return value


def _keys_url(value: str) -> str:
    parts = urlsplit(_web_address(value))
    # Over plain HTTP, any machine on the way could put its own keys in their place.
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise ValueError("should be an https:// URL (http:// only on this machine)")
    return value


def _endpoint_path(value: str) -> str:
    """Return an absolute path without a query.

    Raises:
        ValueError: It is none.
    """
    if not value.startswith("/") or not value.isprintable() or any(mark in value for mark in "?# "):
        raise ValueError('should begin with "/", and have no query')
    return value


def _no_blanks(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(not each or any(mark.isspace() for mark in each) for each in value):
        raise ValueError("should have no empty text, and none with blanks")
    return value


def _ascii_emails(value: tuple[str, ...]) -> tuple[str, ...]:
    for email in value:
        # ASCII only: letters that look alike must not pass for each other.
        if not email.isascii() or email.count("@") != 1 or not all(email.split("@")):
            raise ValueError("should be e-mail addresses in ASCII")
    return value


WebAddress = Annotated[str, AfterValidator(_web_address)]
"""A whole URL with a scheme, a host and a port that can be reached."""
EndpointPath = Annotated[str, AfterValidator(_endpoint_path)]
"""An absolute path without a query."""
SomeTexts = Annotated[
    tuple[str, ...],
    BeforeValidator(as_tuple),
    Field(min_length=1),
    AfterValidator(_no_blanks),
]


class OidcSettings(Model):
    """Trust in OIDC tokens, as Google Cloud Tasks, Scheduler and Pub/Sub send them."""

    audience: SomeTexts
    """The token's audience as the sender sets it: one or several."""
    emails: Annotated[SomeTexts, AfterValidator(_ascii_emails)]
    """The service accounts that may push, case aside; a token for any audience is easy to get."""
    issuer: SomeTexts = ("https://accounts.google.com", "accounts.google.com")
    """The issuers that may have signed it."""
    keys_url: Annotated[str, AfterValidator(_keys_url)] = (
        "https://www.googleapis.com/oauth2/v3/certs"
    )
    """The URL of the issuer's keys (a JWKS document); redirects are not followed."""
    keys_lifetime: float = Field(default=3600.0, gt=0, le=86400)
    """Seconds that the keys are used; a withdrawn one is refused after that."""
    refresh_floor: float = Field(default=5.0, ge=0, le=300)
    """Seconds between two fetches of the keys, whatever tokens come."""
    fetch_timeout: float = Field(default=3.0, gt=0, le=60)
    """Seconds that fetching the keys may take in all."""
    leeway: float = Field(default=10.0, ge=0, le=300)
    """Seconds that clocks may differ."""


class SignatureSettings(Model):
    """Trust in signatures over the body, in the format of Standard Webhooks."""

    keys: Annotated[dict[str, Annotated[SecretStr, AfterValidator(_key)]], Field(min_length=1)]
    """Keys (`whsec_` and base64) by id; several while they are rotated."""
    max_age: float = Field(default=300.0, gt=0)
    """Seconds that a signature is good for, from its time or from when the work is due."""
    leeway: float = Field(default=60.0, ge=0, le=300)
    """Seconds that the signer's clock may be ahead."""
    replay: StoreSpec | None = "memory"
    """The store of settled ids, as `idempotency`: shared by all processes."""


class EndpointSettings(Model):
    """The table `[endpoint]`: this process as a worker, its trust, its limits."""

    worker: bool = False
    """Run what is pushed; otherwise every request is answered 404."""
    path: EndpointPath = PATH
    """The endpoint's path."""
    transport: Literal["cloud_tasks", "plain"] = "cloud_tasks"
    """The statuses and headers: Google Cloud Tasks', or those of any HTTP client."""
    oidc: OidcSettings | None = None
    """Trust OIDC tokens."""
    secrets: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_secret)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Trust `Authorization: Bearer SECRET`; several while they are rotated."""
    signatures: SignatureSettings | None = None
    """Trust signatures over the body."""
    insecure: bool = False
    """Trust every caller; for development, refused by the deployment check."""
    max_body: int = Field(default=1024 * 1024, ge=1024, le=2**30)
    """Bytes of a body; a larger one is refused before it is read."""
    max_depth: int = Field(default=ENVELOPE_DEPTH, ge=4, le=190)
    """Levels of JSON within each other; a deeper body is not an envelope."""
    max_attempts: int = Field(default=100, ge=1)
    """Attempts by the queue's own count after which work is dead."""
    idempotency: StoreSpec | None = None
    """The store that remembers runs by key: as a dispatcher's option of that name."""
    dead_letters: StoreSpec | None = None
    """The store of work that failed permanently: as a dispatcher's option of that name."""
    on_handler_error: OnHandlerError | None = None
    """`raise` makes a task's final failure a dead letter, `log` only logs it."""
    skew_grace: float = Field(default=900.0, ge=0)
    """Seconds that unknown tasks and arguments that do not fit are handed back."""

    def __repr__(self) -> str:
        """The values, the passwords of URLs struck out as secrets are."""
        return without_secrets(super().__repr__(), secrets_of(self))

    __str__ = __repr__

    @property
    def has_verifiers(self) -> bool:
        """True where callers are told apart."""
        return bool(self.oidc or self.secrets or self.signatures)
