"""`dispatchers tasks`: the tasks that the configured modules define."""

from __future__ import annotations

import argparse
from typing import Any

from dispatchers._tasks.task import AnyTask, catalogue

from ._arguments import add_command
from ._exit import Exit
from ._screen import Screen
from ._surroundings import import_modules

__all__ = ["add", "some_tasks"]

TEXT = """
List the tasks of the configured modules: name, dispatcher, parameters, where from.
"""


def add(commands: Any) -> None:
    """Add the command."""
    add_command(commands, "tasks", run, TEXT, as_json=True)


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show every task."""
    import_modules()
    facts = [_facts(task) for task in catalogue.all()]
    if args.json:
        shown.json(facts)
        return Exit.OK
    if not facts:
        shown.note(NONE)
    columns = ("task", "dispatcher", "parameters", "defined in")
    shown.table(columns, [tuple(str(fact[c.replace(" ", "_")]) for c in columns) for fact in facts])
    return Exit.OK


def _facts(task: AnyTask) -> dict[str, object]:
    return {
        "task": task.name,
        "dispatcher": task._values().get("dispatcher") or "default",
        "parameters": ", ".join(task.codec.parameters),
        "defined_in": task.origin if task.implemented else f"{task.origin} (declared only)",
    }


NONE = 'no tasks are registered: name the modules that define them, modules = ["shop.tasks"]'


def some_tasks(names: list[str]) -> list[AnyTask]:
    """Return the tasks of these names, or all, after importing them.

    Raises:
        ConfigurationError: One is not registered.
    """
    from dispatchers._errors import ConfigurationError

    import_modules()
    try:
        return [catalogue.get(name) for name in names] if names else catalogue.all()
    except LookupError as exc:
        raise ConfigurationError(str(exc.args[0])) from None
