"""The dispatchers of this process: one per alias and settings, built on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._check import check, problems, raise_all
from ._contract import BaseDispatcher
from ._errors import LONGEST_NAME, ConfigurationError
from ._layers import DEFAULT
from ._override import explicit_layer, override
from ._snapshot import CLOSE_WAIT, Snapshot
from ._state import View, reload, state

if TYPE_CHECKING:
    from ._config import Settings

__all__ = [
    "CLOSE_WAIT",
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
    "state",
]


def get_dispatcher(alias: str = DEFAULT) -> BaseDispatcher:
    """The dispatcher that is configured under an alias: the same one each time, built on first use.

    Raises:
        ConfigurationError: There is none of that alias, or it is configured wrongly.

        RejectedError: Another thread has been building it for too long.
    """
    found = state.snapshot.instances.get(alias)
    return _built_now(lambda _: _text(alias)) if found is None else found


def _built_now(name: Callable[[Snapshot], str]) -> BaseDispatcher:
    """A dispatcher from the current snapshot, even if that changes while it is being built."""
    while True:
        snapshot = state.snapshot
        found = snapshot.dispatcher(name(snapshot))
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
    """The dispatcher for a task: an alias that is not configured falls back to `default`.

    Raises:
        ConfigurationError: There is none, or it is configured wrongly.
    """
    name = DEFAULT if alias is None else _text(alias)
    return _built_now(lambda snapshot: snapshot.known(name))


def fallbacks() -> tuple[str, ...]:
    """The aliases that tasks asked for, are not configured, and fell back to `default`."""
    return tuple(sorted(state.snapshot.fallbacks))


def current() -> Settings:
    """The settings in force, from all sources.

    Raises:
        ConfigurationError: A source cannot be read, or a setting is unknown or does not fit.
    """
    return state.snapshot.configuration.settings


def settings_of_task(name: str) -> Mapping[str, object]:
    """What the host says about a task by its exact name, by keyword; empty if nothing.

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
    """The JSON Schema of the configuration, with the options of every backend that is there."""
    from ._settings_schema import settings_schema as described

    return described()


def close_all(timeout: float = CLOSE_WAIT) -> int:
    """Close every dispatcher that was built from settings; the next use builds it anew.

    Returns:
        How many pieces of accepted work were left undone.
    """
    return state.change(View.emptied, timeout=timeout)
