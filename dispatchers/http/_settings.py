"""What can be configured for the endpoint: the table `[endpoint]`."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from dispatchers._model import Model
from dispatchers._options import OnHandlerError
from dispatchers._secrets import secrets_of, without_secrets

__all__ = ["PATH", "EndpointSettings", "OidcSettings", "SignatureSettings", "key_bytes"]

PATH = "/dispatchers/run"
"""Where the endpoint is: what is pushed goes there, unless both sides are told otherwise."""
SHORTEST_SECRET = 16
"""Characters; fewer can be guessed."""
SHORTEST_KEY = 24
"""Bytes, the least that Standard Webhooks allows."""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def _as_names(value: object) -> object:
    if isinstance(value, str):
        return (str(value),)
    return tuple(value) if isinstance(value, list | set | frozenset) else value


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < SHORTEST_SECRET or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(
            f"a secret is at least {SHORTEST_SECRET} printable ASCII characters without blanks: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return value


def key_bytes(value: SecretStr) -> bytes:
    """The bytes of a key in the notation of Standard Webhooks.

    Raises:
        ValueError: It is no base64, or too short.
    """
    text = value.get_secret_value().removeprefix("whsec_")
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a key is base64, with or without whsec_ before it") from None
    if len(found) < SHORTEST_KEY:
        raise ValueError(f"a key has at least {SHORTEST_KEY} bytes, not {len(found)}")
    return found


def _key(value: SecretStr) -> SecretStr:
    key_bytes(value)
    return value


def _keys_url(value: str) -> str:
    parts = urlsplit(value)
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not (safe and parts.hostname):
        raise ValueError("should be an https:// URL (http:// only on this machine)")
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or any(mark in value for mark in "?# "):
        raise ValueError('should begin with "/", and have no query')
    return value


def _ascii_emails(value: tuple[str, ...]) -> tuple[str, ...]:
    for email in value:
        if not email.isascii() or email.count("@") != 1:
            raise ValueError("should be e-mail addresses in ASCII")
    return value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
SomeTexts = Annotated[tuple[str, ...], BeforeValidator(_as_names), Field(min_length=1)]


class OidcSettings(Model):
    """Who may push with an OIDC token: Google Cloud Tasks, Scheduler and Pub/Sub send one."""

    audience: SomeTexts
    """What the token must be for, as the sender sets it: one or several."""
    emails: Annotated[SomeTexts, AfterValidator(_ascii_emails)]
    """The service accounts that may push, case aside; anybody can have a token for any audience."""
    issuer: SomeTexts = ("https://accounts.google.com", "accounts.google.com")
    """Who may have signed it."""
    keys_url: Annotated[str, AfterValidator(_keys_url)] = (
        "https://www.googleapis.com/oauth2/v3/certs"
    )
    """Where the issuer's keys are (a JWKS document); redirects are not followed."""
    keys_lifetime: float = Field(default=3600.0, gt=0, le=86400)
    """Seconds that the keys are used; a withdrawn one is refused after that."""
    refresh_floor: float = Field(default=5.0, ge=0, le=300)
    """Seconds between two fetches of the keys, whatever tokens come."""
    fetch_timeout: float = Field(default=3.0, gt=0, le=60)
    """Seconds that fetching the keys may take in all."""
    leeway: float = Field(default=10.0, ge=0, le=300)
    """Seconds that clocks may differ."""


class SignatureSettings(Model):
    """Who may push with a signature over the body, in the format of Standard Webhooks."""

    keys: Annotated[dict[str, Annotated[SecretStr, AfterValidator(_key)]], Field(min_length=1)]
    """Keys (`whsec_` and base64) by id; several while they are rotated."""
    max_age: float = Field(default=300.0, gt=0)
    """Seconds that a signature is good for, from its time or from when the work is due."""
    leeway: float = Field(default=60.0, ge=0, le=300)
    """Seconds that the signer's clock may be ahead."""
    replay: str | None = "memory"
    """Where ids that were settled are remembered, as `idempotency`: shared by all processes."""


class EndpointSettings(Model):
    """The table `[endpoint]`: whether this process is a worker, whom it trusts, its limits."""

    worker: bool = False
    """Whether this process runs what is pushed; otherwise every request is answered 404."""
    path: Annotated[str, AfterValidator(_path)] = PATH
    """Where the endpoint is."""
    transport: Literal["cloud_tasks", "plain"] = "cloud_tasks"
    """Whose statuses and headers: Google Cloud Tasks', or those of any HTTP client."""
    oidc: OidcSettings | None = None
    """Trust OIDC tokens."""
    secrets: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_secret)], ...], BeforeValidator(_as_names)
    ] = ()
    """Trust `Authorization: Bearer SECRET`; several while they are rotated."""
    signatures: SignatureSettings | None = None
    """Trust signatures over the body."""
    insecure: bool = False
    """Trust everybody; for development, refused by the deployment check."""
    max_body: int = Field(default=1024 * 1024, ge=1024, le=2**30)
    """Bytes of a body; a larger one is refused before it is read."""
    max_depth: int = Field(default=64, ge=4, le=190)
    """Levels of JSON within each other; a deeper body is no envelope."""
    max_attempts: int = Field(default=100, ge=1)
    """Attempts by the queue's own count after which work is dead."""
    idempotency: str | None = None
    """Where runs are remembered by key: as a dispatcher's option of that name."""
    dead_letters: str | None = None
    """Where work that failed for good is kept: as a dispatcher's option of that name."""
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
        """Whether anybody is told apart from anybody else."""
        return bool(self.oidc or self.secrets or self.signatures)
