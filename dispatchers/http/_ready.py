"""From settings to what works: verifiers with their keys, stores that are open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from dispatchers._current import RunSettings
from dispatchers._dead import DeadLetterStore
from dispatchers._errors import ConfigurationError
from dispatchers._idempotency import IdempotencyStore
from dispatchers._library import cause, imported
from dispatchers._sentences import joined, sentences_of
from dispatchers._stores import dead_letters, idempotency

from ._oidc import Oidc
from ._replay import Replays
from ._settings import EndpointSettings
from ._signatures import Signatures
from ._verdict import Secrets, Verifier

__all__ = ["Ready", "prepared"]

T = TypeVar("T")
UNTRUSTED = (
    "endpoint: this process is a worker and trusts nobody: configure endpoint.oidc, "
    "endpoint.secrets or endpoint.signatures (or endpoint.insecure = true, for development)"
)
BOTH = "endpoint.insecure: trusts everybody, so the verifiers beside it are of no use: drop one"


class Ready(NamedTuple):
    """An endpoint's parts."""

    settings: EndpointSettings
    verifiers: tuple[Verifier, ...]
    run: RunSettings
    letters: DeadLetterStore | None
    replays: Replays | None
    oidc: Oidc | None
    """Among the verifiers, the one that may wait for somebody else."""


def prepared(settings: EndpointSettings | None) -> Ready:
    """The parts; those of a process that is no worker are left out, for it answers nothing.

    Raises:
        ConfigurationError: With every problem there is.
    """
    found, modules = (settings, ()) if settings is not None else _configured()
    if not found.worker:
        return Ready(found, (), RunSettings(), None, None, None)
    problems: list[str] = []
    if not (found.insecure or found.has_verifiers):
        problems.append(UNTRUSTED)
    if found.insecure and found.has_verifiers:
        problems.append(BOTH)
    for module in modules:
        _tried(problems, partial(_import, module))
    verifiers = tuple(each for make in _verifiers(found) if (each := _tried(problems, make)))
    ready = Ready(
        found,
        verifiers,
        _run_settings(found, problems),
        _opened(found.dead_letters, dead_letters, problems),
        _replays(found, problems),
        next((each for each in verifiers if isinstance(each, Oidc)), None),
    )
    if problems:
        raise joined(problems)
    return ready


def _configured() -> tuple[EndpointSettings, tuple[str, ...]]:
    from dispatchers._state import state

    configuration = state.snapshot.configuration
    return configuration.endpoint(), configuration.settings.modules


def _tried(problems: list[str], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ConfigurationError as exc:
        problems.extend(sentences_of(exc))
    except Exception as exc:  # noqa: BLE001 - anybody's module or store
        problems.append(f"endpoint: {cause(exc)}")
    return None


def _import(module: str) -> None:
    try:
        imported(module)
    except Exception as exc:
        raise ConfigurationError(
            f"importing the task module {module!r} raised {cause(exc)}"
        ) from exc


def _verifiers(settings: EndpointSettings) -> list[Callable[[], Verifier]]:
    made: list[Callable[[], Verifier]] = []
    if settings.secrets:
        made.append(lambda: Secrets(settings.secrets))
    if (signatures := settings.signatures) is not None:
        made.append(lambda: Signatures(signatures))
    if (oidc := settings.oidc) is not None:
        made.append(lambda: Oidc(oidc))
    return made


def _opened(spec: str | None, opens: Callable[[str], T], problems: list[str]) -> T | None:
    return None if spec is None else _tried(problems, lambda: opens(spec))


def _run_settings(settings: EndpointSettings, problems: list[str]) -> RunSettings:
    """A push queue has one count, of attempts and deliveries alike, so it has one limit."""
    store: IdempotencyStore | None = _opened(settings.idempotency, idempotency, problems)
    return RunSettings(
        on_handler_error=settings.on_handler_error,
        idempotency=store,
        max_deliveries=settings.max_attempts,
        skew_grace=settings.skew_grace,
    )


def _replays(settings: EndpointSettings, problems: list[str]) -> Replays | None:
    spec = None if settings.signatures is None else settings.signatures.replay
    store = _opened(spec, idempotency, problems)
    return None if store is None else Replays(store)
