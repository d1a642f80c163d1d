"""`dispatchers doctor`: everything that can be known to be wrong, before somebody's work is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from dispatchers._catalogue import catalogue
from dispatchers._check import problems
from dispatchers._contract import BaseDispatcher
from dispatchers._errors import ConfigurationError
from dispatchers._instances import current, get_dispatcher, state
from dispatchers._library import cause
from dispatchers._stores import dead_letters, idempotency

from ._arguments import add_command
from ._exit import Exit
from ._fit import misfits
from ._screen import Screen
from ._surroundings import file_in_force, import_modules, selected_target

__all__ = ["Finding", "add", "findings"]

TEXT = """
Check every dispatcher and task of the target; with --contact, reach the backends too.

Meant for pipelines: it ends with 0 when there is no error, with 1 when there is one. Warnings are
shown and do not count, unless --strict says so.
"""

Severity = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """What was looked at, and how it is."""

    subject: str
    """A dispatcher's alias, a task's name, or nothing for the whole."""
    severity: Severity
    message: str
    """What, where and the cure; for what is in order, what it is."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "doctor", run, TEXT, as_json=True)
    parser.add_argument("--contact", action="store_true", help="reach the backends and stores")
    parser.add_argument("--strict", action="store_true", help="count warnings as errors")


def run(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show what is found."""
    found = findings(args.target, contact=args.contact)
    errors = [each for each in found if each.severity == "error"]
    warnings = [each for each in found if each.severity == "warning"]
    bad = bool(errors or (args.strict and warnings))
    if args.json:
        shown.json({"ok": not bad, "findings": [each._asdict() for each in found]})
    else:
        _show(shown, found)
        shown.line(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}", _style(found))
    return Exit.PROBLEMS if bad else Exit.OK


def _show(shown: Screen, found: list[Finding]) -> None:
    shown.table(
        ("what", "state", "message"),
        [(each.subject or "configuration", each.severity, each.message) for each in found],
    )


def _count(found: list[Finding], name: str) -> str:
    return f"{len(found) or 'no'} {name}{'' if len(found) == 1 else 's'}"


def _style(found: list[Finding]) -> str:
    severities = {each.severity for each in found}
    if "error" in severities:
        return "bold red"
    return "yellow" if "warning" in severities else "green"


def findings(target: str | None = None, *, contact: bool = False) -> list[Finding]:
    """Everything about the selected target that can be known, errors first."""
    try:
        name = selected_target(target)
        found = [*_modules(), *_dispatchers(contact=contact), *_tasks()]
        found.insert(0, Finding("", "ok", _place(name)))
    except ConfigurationError as exc:
        return [Finding("", "error", str(exc))]
    order = ("error", "warning", "ok")
    return sorted(dict.fromkeys(found), key=lambda each: order.index(each.severity))


def _place(target: str | None) -> str:
    file = file_in_force()
    source = f"from {file}" if file else "no file"
    if target is None:
        return f"nothing is configured ({source}): tasks run inline, in the call"
    return f"target {target!r}, {source}"


def _modules() -> Iterator[Finding]:
    try:
        import_modules()
    except ConfigurationError as exc:
        yield Finding("", "error", str(exc))
        return
    names = ", ".join(current().modules)
    count = len(catalogue.all())
    if names:
        yield Finding("", "ok", f"{count} task{'' if count == 1 else 's'} from {names}")


def _dispatchers(*, contact: bool) -> Iterator[Finding]:
    known = problems(contact=contact)
    for each in known:
        yield Finding(each.alias, each.severity, each.message)
    broken = {each.alias for each in known if each.severity == "error"}
    for alias in sorted(state.snapshot.aliases() - broken):
        yield from _stores(alias, get_dispatcher(alias), contact=contact)


def _stores(alias: str, dispatcher: BaseDispatcher, *, contact: bool) -> Iterator[Finding]:
    wrong = [*_store_errors(dispatcher, contact=contact)]
    for message in wrong:
        yield Finding(alias, "error", message)
    if not wrong:
        reached = ", reached" if contact else ""
        yield Finding(alias, "ok", f"backend {dispatcher.name!r}{reached}")


def _store_errors(dispatcher: BaseDispatcher, *, contact: bool) -> Iterator[str]:
    """Opens the stores that are configured; with contact, asks them something harmless."""
    options = dispatcher.options
    for option, spec in (
        ("dead_letters", options.dead_letters),
        ("idempotency", options.idempotency),
    ):
        if spec is None:
            continue
        try:
            _open(option, spec, contact=contact)
        except ConfigurationError as exc:
            yield str(exc)
        except Exception as exc:  # noqa: BLE001 - anybody's store
            yield f"{option} = {spec!r} cannot be used: {cause(exc)}"


def _open(option: str, spec: str, *, contact: bool) -> None:
    if option == "dead_letters":
        letters = dead_letters(spec)
        if contact:
            letters.list(limit=1)
    else:
        keys = idempotency(spec)
        if contact:
            keys.release("dispatchers doctor", "dispatchers doctor")


def _tasks() -> Iterator[Finding]:
    for task in catalogue.all():
        for severity, message in misfits(task):
            yield Finding(task.name, severity, message)
