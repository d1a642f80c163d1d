"""Keeping tests away from real queues: `null` in place of backends that outlive the process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dispatchers._models.capabilities import OPTIONS
from dispatchers._runtime.log import say_once

if TYPE_CHECKING:
    from dispatchers._config.settings import Configuration, Specification

__all__ = ["Keeper", "isolated", "keep_in_process"]

Keeper = Callable[[str], bool | None]
"""Told the file, variable or settings that configure a dispatcher: true keeps its work in the
process, false lets it out, whatever others say, None says nothing."""

IN_PROCESS = frozenset({"inline", "thread", "asyncio", "memory", "null"})
PLUGIN = "dispatchers_pytest"
"""The pytest plugin. It imports nothing of the library, so it is asked where it is loaded."""
KEPT = ("queue", "queues")
"""Options that decide what is accepted at all."""

_keepers: list[Keeper] = []


def keep_in_process(keeper: Keeper) -> None:
    """Ask `keeper` before a dispatcher is built from a file, a variable or a framework's settings.

    A dispatcher given from code, by `configure` or `override`, is built as it says.
    """
    if keeper not in _keepers:
        _keepers.append(keeper)


def isolated(configuration: Configuration, found: Specification) -> Specification:
    """Return `null` in place of a backend that outlives the process, where tests want that."""
    keys = ("targets", configuration.target() or "", found.alias)
    origin = configuration.layer.origin_of(keys)
    if found.cls.name in IN_PROCESS or origin.endswith("()") or not _is_kept(origin):
        return found
    say_once(
        configuration,
        logging.INFO,
        "tests are running: %r accepts work and drops it in place of %r; "
        "docs/testing.md says how a test reaches the real queue",
        found.alias,
        found.cls.name,
    )
    own = {key: value for key, value in found.raw.items() if key in KEPT}
    raw = {"backend": "null", "waive": _unsupported(), **own}
    return configuration.specified(found.alias, raw, (), origin)


def _is_kept(origin: str) -> bool:
    said = [keeper(origin) for keeper in _all_keepers()]
    return True in said and False not in said


def _all_keepers() -> Iterable[Keeper]:
    plugin = sys.modules.get(PLUGIN)
    return _keepers if plugin is None else [*_keepers, plugin.keeps_in_process]


def _unsupported() -> list[str]:
    from dispatchers._config.registry import load_backend

    able = load_backend("null").capabilities
    return [option for option in OPTIONS if not able.supports(option)]
