"""Problems of an endpoint that can be started."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from dispatchers._models.problem import Problem
from dispatchers.http._settings import EndpointSettings

__all__ = ["problems_of"]

Severity = Literal["error", "warning"]


def problems_of(settings: EndpointSettings, *, deploy: bool) -> list[Problem]:
    """Return each problem; a process that is not a worker has none."""
    if not settings.worker:
        return []
    found = [*_grave(settings), *(_slight(settings) if deploy else ())]
    severity: Severity = "error" if deploy else "warning"
    return [Problem("", "", s or severity, f"endpoint: {text}") for s, text in found]


Found = tuple[Severity | None, str]


def _grave(settings: EndpointSettings) -> Iterator[Found]:
    """Yield what a deployment may not have."""
    if settings.insecure:
        yield None, "insecure = true trusts every caller that can reach it"
    if settings.dead_letters is None:
        yield None, "no dead_letters: work that fails permanently is lost; name a store"
    elif settings.dead_letters == "memory":
        yield None, 'dead_letters = "memory" forgets with the process; name another store'
    if settings.oidc is not None and settings.oidc.keys_url.startswith("http:"):
        yield None, "oidc.keys_url is not https"


def _slight(settings: EndpointSettings) -> Iterator[Found]:
    if settings.idempotency in (None, "memory"):
        yield "warning", "no idempotency that processes share: a repeated delivery runs again"
    if settings.signatures is not None and settings.signatures.replay in (None, "memory"):
        yield "warning", "signatures.replay is not shared: each process takes a replay once"
