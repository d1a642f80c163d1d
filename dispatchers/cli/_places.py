"""Dispatchers grouped by the place their work goes to."""

from __future__ import annotations

from collections.abc import Mapping

from dispatchers._config.api import get_dispatcher, state
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._models.options import BackendOptions

__all__ = ["dispatchers", "places", "same_place"]

CALLERS_OWN = frozenset({"queue", "queues", "deadline", "breaker", "waive", "on_handler_error"})
"""Options that do not say where work goes, nor what a worker keeps for it."""


def dispatchers() -> dict[str, BaseDispatcher]:
    """Return every dispatcher of the target by alias.

    Raises:
        ConfigurationError: One is configured wrongly.
    """
    return {alias: get_dispatcher(alias) for alias in sorted(state.snapshot.aliases())}


def places(found: Mapping[str, BaseDispatcher]) -> list[list[str]]:
    """Return the aliases grouped by place, `default` first."""
    grouped: list[list[str]] = []
    # `default` first: its alias names the place in messages.
    for alias in sorted(found, key=lambda alias: (alias != "default", alias)):
        same = [each for each in grouped if same_place(found[each[0]], found[alias])]
        if same:
            same[0].append(alias)
        else:
            grouped.append([alias])
    return grouped


def same_place(one: BaseDispatcher, other: BaseDispatcher) -> bool:
    """Tell whether two dispatchers hand their work to the same place, by their options."""
    # By options, not by connection: nothing is contacted to find out.
    return type(one) is type(other) and _place(one.options) == _place(other.options)


def _place(options: BackendOptions) -> dict[str, object]:
    return {key: value for key, value in options.__dict__.items() if key not in CALLERS_OWN}
