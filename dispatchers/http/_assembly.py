"""Parts of an endpoint, made from its settings: verifiers with their keys, open stores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dispatchers._config.lifecycle import state
from dispatchers._errors import ConfigurationError
from dispatchers._models.claim import IdempotencyStore
from dispatchers._models.dead_letter import DeadLetterStore
from dispatchers._models.validation import joined, sentences_of
from dispatchers._runtime.importing import cause, imported
from dispatchers._stores.loading import dead_letters, idempotency
from dispatchers._worker.run import DEFAULTS, RunSettings
from dispatchers.http._auth import Secrets, Verifier
from dispatchers.http._oidc import Oidc
from dispatchers.http._replay import Replays
from dispatchers.http._settings import EndpointSettings
from dispatchers.http._signatures import Signatures

if TYPE_CHECKING:
    from dispatchers._config.settings import Configuration

__all__ = ["Assembly", "assembled", "configured_endpoint", "is_current"]

T = TypeVar("T")


UNTRUSTED = (
    "endpoint: this process is a worker and trusts no caller: configure endpoint.oidc, "
    "endpoint.secrets or endpoint.signatures (or endpoint.insecure = true, for development)"
)


BOTH = "endpoint.insecure: trusts every caller, so the verifiers beside it have no effect: drop one"


class Assembly(NamedTuple):
    """An endpoint's parts."""

    settings: EndpointSettings
    configuration: Configuration | None
    """The configuration that the settings are from; None of settings from code."""
    verifiers: tuple[Verifier, ...] = ()
    run: RunSettings = DEFAULTS
    letters: DeadLetterStore | None = None
    replays: Replays | None = None
    oidc: Oidc | None = None
    """Among the verifiers, the one that may wait for a server."""


def assembled(settings: EndpointSettings | None) -> Assembly:
    """Make the parts; a process that is not a worker needs none.

    Raises:
        ConfigurationError: With every problem there is.
    """
    configuration = state.snapshot.configuration if settings is None else None
    found = settings or _configuration_of(configuration).endpoint()
    if not found.worker:
        return Assembly(found, configuration)
    # Collected, not raised one by one: an operator sees all that is wrong in one start.
    problems: list[str] = []
    if not (found.insecure or found.has_verifiers):
        problems.append(UNTRUSTED)
    if found.insecure and found.has_verifiers:
        problems.append(BOTH)
    # Before the stores: a module may register what a store's name refers to.
    for kind, module in _modules(configuration):
        _tried(problems, partial(_import, kind, module))
    verifiers = tuple(each for make in _verifiers(found) if (each := _tried(problems, make)))
    parts = Assembly(
        found,
        configuration,
        verifiers,
        _run_settings(found, problems),
        _opened(found.dead_letters, dead_letters, problems),
        _replays(found, problems),
        next((each for each in verifiers if isinstance(each, Oidc)), None),
    )
    if problems:
        raise joined(problems)
    return parts


def is_current(parts: Assembly) -> bool:
    """Return whether the configuration in force is the one that the parts were made from."""
    made_from = parts.configuration
    return made_from is None or made_from is state.snapshot.configuration


def configured_endpoint() -> EndpointSettings | None:
    """Return the settings of the table `[endpoint]`, or None where there is none.

    Raises:
        ConfigurationError: They cannot be read, or are wrong.
    """
    configuration = state.snapshot.configuration
    if not configuration.settings.endpoint:
        return None
    found: EndpointSettings = configuration.endpoint()
    return found


def _configuration_of(given: Configuration | None) -> Configuration:
    return given or state.snapshot.configuration


def _modules(configuration: Configuration | None) -> list[tuple[str, str]]:
    """Return the modules to import; hooks see every run, also with settings from code."""
    try:
        found = _configuration_of(configuration).settings
    except ConfigurationError:
        if configuration is not None:
            raise
        return []  # settings from code need no configuration that can be read
    tasks = found.modules if configuration is not None else ()
    return [*(("task", name) for name in tasks), *(("hooks", name) for name in found.hooks)]


def _tried(problems: list[str], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ConfigurationError as exc:
        problems.extend(sentences_of(exc))
    except Exception as exc:  # noqa: BLE001 - code of others: modules, stores
        problems.append(f"endpoint: {cause(exc)}")
    return None


def _import(kind: str, module: str) -> None:
    try:
        imported(module)
    except Exception as exc:
        raise ConfigurationError(
            f"importing the {kind} module {module!r} raised {cause(exc)}"
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
    # A push queue has one count, of attempts and deliveries alike, so it has one limit.
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
