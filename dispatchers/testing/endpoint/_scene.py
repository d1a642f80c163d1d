"""The scene of an endpoint's cases: a trusted issuer, work to push, its journal."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from dispatchers import DispatchRequest
from dispatchers._models.envelope import encode
from dispatchers.http import (
    PATH,
    Answer,
    EndpointSettings,
    OidcSettings,
    SignatureSettings,
    sign,
)
from dispatchers.http._request import Headers
from dispatchers.testing import tasks
from dispatchers.testing.journal import Journal

from ._issuer import AUDIENCE, EMAIL, Issuer

__all__ = ["KEYS", "SECRETS", "Scene", "Send"]

Send = Callable[[str, str, Headers, bytes], Answer]
"""`send(method, path, headers, body)`: one request to the integration, and its answer."""

SECRETS = ("the-first-secret-of-two", "the-second-secret-of-two")
KEYS = {
    name: f"whsec_{base64.b64encode(name.encode() * 8).decode()}" for name in ("first", "second")
}
FETCH_TIMEOUT = 0.5
"""Seconds; a loaded machine still fetches a document from itself."""


class Scene:
    """A worker's settings that trust every kind of caller, and requests to it."""

    def __init__(self, issuer: Issuer, journal: Journal) -> None:
        self.issuer = issuer
        self.journal = journal
        self.body = self.note()

    def settings(self, **changes: Any) -> EndpointSettings:
        """Trust tokens, secrets and signatures; other settings by keyword."""
        own: dict[str, Any] = {
            "worker": True,
            "secrets": SECRETS,
            "signatures": SignatureSettings.model_validate({"keys": KEYS}),
            "oidc": self.oidc(),
            "dead_letters": "memory",
            # Dead at once: a case need not wait for an unknown task to be given up.
            "skew_grace": 0.0,
        }
        return EndpointSettings(**{**own, **changes})

    def oidc(self, **changes: Any) -> OidcSettings:
        """Trust the issuer; other settings by keyword."""
        own: dict[str, Any] = {
            "audience": AUDIENCE,
            "emails": EMAIL,
            "keys_url": self.issuer.keys_url,
            # Without a floor, so that a case which rotates keys need not wait for it.
            "refresh_floor": 0.0,
            "fetch_timeout": 5.0,
        }
        return OidcSettings(**{**own, **changes})

    # Work.

    def note(self, text: str = "ran", **options: Any) -> bytes:
        """An envelope that says something to the journal."""
        return self.envelope(tasks.note, journal=self.journal.path, text=text, **options)

    def envelope(self, task: Any, **arguments: Any) -> bytes:
        """An envelope of a task; `options` are those of the dispatch."""
        options = arguments.pop("options", {})
        bound = task.options(**options) if options else task
        return encode(bound.request(**arguments))

    def foreign(self, task: str, **values: Any) -> bytes:
        """An envelope of a task that need not exist."""
        return encode(DispatchRequest(task=task, **values))

    # Requests.

    def headers(self, token: str | None = SECRETS[0], **more: str) -> list[tuple[str, str]]:
        """The headers of a push; `X_Y` becomes `X-Y`."""
        own = [("Content-Type", "application/json")]
        if token is not None:
            own.append(("Authorization", f"Bearer {token}"))
        return own + [(name.replace("_", "-"), value) for name, value in more.items()]

    def signed(self, body: bytes, *, name: str = "first", **options: Any) -> list[tuple[str, str]]:
        """The headers of a push with a signature."""
        named: dict[str, Any] = {"id": "msg_1", **options}
        signature = sign(body, key=KEYS[name], **named)
        return [*self.headers(None), *signature.items()]

    def push(self, send: Send, body: bytes | None = None, **headers: str) -> Answer:
        """Push with a shared secret."""
        whole = self.headers(SECRETS[0], **headers)
        return send("POST", PATH, whole, self.body if body is None else body)
