"""One dispatcher in place of every configured one, for as long as a test lasts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from dispatchers._config.api import override, state
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError

__all__ = ["everywhere", "installed"]

D = TypeVar("D", bound=BaseDispatcher)


@contextmanager
def installed(dispatcher: D) -> Generator[D]:
    """Use `dispatcher` under every alias; it is closed at the end.

    ::

        with installed(InlineDispatcher(waive=["delay"])):
            ...
    """
    with everywhere(lambda _: dispatcher):
        try:
            yield dispatcher
        finally:
            dispatcher.close()


def everywhere(dispatcher_of: Callable[[str], BaseDispatcher]) -> override:
    """The override that gives each configured alias, and `default`, its dispatcher."""
    # Every alias is named: an override leaves those that it does not name as they are.
    given: dict[str, Any] = {alias: dispatcher_of(alias) for alias in {"default", *_aliases()}}
    return override(**given)


def _aliases() -> set[str]:
    """The aliases that are configured; none where the configuration cannot be read here."""
    try:
        return state.snapshot.aliases()
    except ConfigurationError:
        return set()
