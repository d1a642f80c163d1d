"""Configuration and dispatchers of this process, as programs use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dispatchers._config.checks import problems_of, raise_all
from dispatchers._config.container import CLOSE_WAIT, Snapshot, siblings
from dispatchers._config.container import build as build_from
from dispatchers._config.layers import DEFAULT, Layer, code_layer
from dispatchers._config.lifecycle import View, reload, state
from dispatchers._config.override import explicit_layer, override
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import LONGEST_NAME, ConfigurationError
from dispatchers._models.problem import Problem

if TYPE_CHECKING:
    from dispatchers._config.settings import Settings

__all__ = [
    "CLOSE_WAIT",
    "build",
    "check",
    "close_all",
    "configure",
    "current",
    "fallbacks",
    "get_dispatcher",
    "override",
    "problems",
    "reload",
    "resolve",
    "settings_of_task",
    "settings_schema",
    "sibling",
    "state",
]


def get_dispatcher(alias: str = DEFAULT) -> BaseDispatcher:
    """Return the dispatcher of an alias, built on first use.

    Raises:
        ConfigurationError: There is none of that alias, or it is configured wrongly.

        RejectedError: Another thread has been building it for too long.
    """
    # The usual case first: a look into a dict needs no lock.
    found = state.snapshot.instances.get(alias)
    return _built_now(lambda _: _text(alias)) if found is None else found


def sibling(alias: str) -> BaseDispatcher:
    """Return a dispatcher that another one stands on, while that one is being built.

    Raises:
        ConfigurationError: There is none of that alias, or it is configured wrongly.
    """
    return (siblings.get() or get_dispatcher)(alias)


def build(backend: str, /, *, alias: str | None = None, **options: object) -> BaseDispatcher:
    """Build a dispatcher that is not configured, for a library that keeps it.

    It is not kept here: `get_dispatcher` does not know it, and the code that builds it
    closes it. Paths in its options start from the working directory.

    Args:
        backend: The registered name, or `auto`.

        alias: What responses and the log call it; by default the backend's name.

        options: The backend's options by keyword.

    Raises:
        ConfigurationError: The backend is unknown, its library is missing, or an option does not
            fit.
    """
    # Late: `import dispatchers` stays cheap.
    from dispatchers._config.settings import Configuration

    raw = {**code_layer(options, "build()").values, "backend": backend}
    name = _text(alias or str(backend))
    return build_from(Configuration(Layer({})).specified(name, raw, (), "build()"))


def _built_now(name: Callable[[Snapshot], str]) -> BaseDispatcher:
    """Return a dispatcher of the snapshot that is current afterwards too."""
    while True:
        snapshot = state.snapshot
        found = snapshot.dispatcher(name(snapshot))
        # A change of the configuration meanwhile has closed it: build the new one instead.
        if not snapshot.retired:
            return found


def _text(alias: object) -> str:
    if not isinstance(alias, str):
        raise ConfigurationError(f"an alias is text, not {type(alias).__name__}")
    if len(alias) > LONGEST_NAME:
        raise ConfigurationError(
            f"an alias has at most {LONGEST_NAME} characters, not {len(alias)}"
        )
    return alias


def resolve(alias: str | None) -> BaseDispatcher:
    """Return the dispatcher of an alias, or `default` where it is not configured.

    Raises:
        ConfigurationError: There is none, or it is configured wrongly.
    """
    name = DEFAULT if alias is None else _text(alias)
    found = state.snapshot.instances.get(name)
    return _built_now(lambda snapshot: snapshot.known(name)) if found is None else found


def fallbacks() -> tuple[str, ...]:
    """Return the aliases that fell back to `default`."""
    return tuple(sorted(state.snapshot.fallbacks))


def current() -> Settings:
    """Return the settings in force, from all sources.

    Raises:
        ConfigurationError: A source cannot be read, or a setting is unknown or does not fit.
    """
    return state.snapshot.configuration.settings


def settings_of_task(name: str) -> Mapping[str, object]:
    """Return the host's overrides of a task, by keyword.

    Raises:
        ConfigurationError: As `current` does.
    """
    return state.snapshot.task(name)


def configure(settings: Mapping[str, object] | None = None, *, target: str | None = None) -> None:
    """Configure from code; replaces what was configured from code before.

    Environment and file still apply where `settings` says nothing. Dispatchers whose settings
    change are closed, the others stay.

    Args:
        settings: In the shape of `dispatchers.toml`.

        target: The target to select.

    Raises:
        ConfigurationError: Something is wrong with the selected target; nothing has changed then.
    """
    explicit = explicit_layer(settings, target, "configure()")
    state.change(lambda view: view.changed(view.stack, explicit, anew=True), raise_all)


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration, with each backend's options."""
    from dispatchers._config.json_schema import settings_schema as described

    return described()


def close_all(timeout: float = CLOSE_WAIT) -> int:
    """Close every dispatcher built from settings; the next use rebuilds it.

    Returns:
        How many pieces of accepted work were left undone.
    """
    return state.change(View.emptied, timeout=timeout)


def problems(target: str | None = None, *, contact: bool = False) -> list[Problem]:
    """Return the problems of a target; never raises an `Exception`."""
    return problems_of(state.snapshot, target, contact=contact)


def check(*, contact: bool = False, target: str | None = None) -> None:
    """Check the configuration and every dispatcher of a target: the start-up check.

    Args:
        contact: Reach the backends as well.

        target: Another target than the selected one.

    Raises:
        ConfigurationError: With every problem there is, not just the first.
    """
    errors = [each for each in problems(target, contact=contact) if each.severity == "error"]
    if errors:
        from dispatchers._models.validation import joined

        raise joined([each.message for each in errors])
