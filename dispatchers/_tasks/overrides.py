"""Check of the host's overrides by name against the tasks that are registered."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from dispatchers._config.api import current, state
from dispatchers._config.layers import dotted
from dispatchers._errors import LONGEST_NAME
from dispatchers._models.problem import Problem
from dispatchers._runtime.importing import is_importable
from dispatchers._tasks.task import catalogue

LIKENESS = 0.85
"""Likeness, as `difflib` has it, from which on an unknown name is a task's, misspelt.

High, as names of one module have much in common, and hosts may override tasks of other programs.
"""


def misspelt_overrides() -> list[Problem]:
    """Return the overrides of unknown tasks whose name is nearly that of a known one.

    None while modules of the configuration are not imported, as these may have the tasks.

    Raises:
        ConfigurationError: The configuration cannot be read.
    """
    if any(module not in sys.modules for module in current().modules):
        return []
    return [*_misspelt()]


def _misspelt() -> Iterator[Problem]:
    overridden = current().tasks
    names = {task.name for task in catalogue.all()}
    for name in sorted(overridden.keys() - names):
        # A name that is overridden itself is spelt right, and meant by no other.
        near = _nearest(name, names - overridden.keys())
        if near is not None and not _to_come(name):
            keys = ("tasks", name)
            place = f"{dotted(keys)} ({state.snapshot.configuration.layer.origin_of(keys)})"
            message = f"{place}: no task of that name is registered; did you mean {near!r}?"
            yield Problem("", "", "warning", message)


def _nearest(name: str, known: set[str]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name[:LONGEST_NAME], sorted(known), 1, LIKENESS)
    return near[0] if near else None


def _to_come(name: str) -> bool:
    """Tell whether the task's name, as it is by default, is in a module that is not imported."""
    module = name.rpartition(".")[0]
    return bool(module) and module not in sys.modules and is_importable(module)
