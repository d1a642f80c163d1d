"""`dispatchers doctor`: find what is wrong before any work is lost."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from dispatchers._config.api import current, get_dispatcher, problems, state
from dispatchers._config.environment import ignored_variables, is_of_a_service
from dispatchers._config.files import foreign
from dispatchers._config.settings import Settings
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError
from dispatchers._models.paths import paths_in
from dispatchers._models.redaction import without_passwords
from dispatchers._runtime.importing import cause
from dispatchers._runtime.platform import lacks_posix
from dispatchers._stores.loading import dead_letters, idempotency
from dispatchers._tasks.overrides import misspelt_overrides
from dispatchers._tasks.task import catalogue

from ._arguments import add_command
from ._exit import Exit
from ._fit import misfits
from ._places import dispatchers
from ._screen import Screen
from ._surroundings import file_in_force, import_modules, selected_target
from ._worker import needs_posix, no_tasks

__all__ = ["Finding", "add", "findings"]

TEXT = """
Check every dispatcher and task of the target; with --contact, reach the backends too.

Meant for pipelines: it ends with 0 when there is no error, with 1 when there is one. Warnings are
shown and do not count, unless --strict says so.
"""

Severity = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """Result of one check."""

    subject: str
    """A dispatcher's alias, a task's name, or nothing for the whole."""
    severity: Severity
    message: str
    """The problem, its place and the cure; or a description of what is in order."""


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
    """Return everything that can be known of the target, errors first."""
    try:
        name = selected_target(target)
        found = [
            *_file(),
            *_variables(),
            *_endpoint(),
            # Before the dispatchers and tasks: importing the modules registers what those are
            # checked against.
            *_modules(),
            *_dispatchers(contact=contact),
            *_tasks(),
            *_workflows(contact=contact),
        ]
        found.insert(0, Finding("", "ok", _place(name)))
    except ConfigurationError as exc:
        return [Finding("", "error", str(exc))]
    order = ("error", "warning", "ok")
    # Without repetitions: two checks may find the same.
    return sorted(dict.fromkeys(found), key=lambda each: order.index(each.severity))


def _place(target: str | None) -> str:
    file = file_in_force()
    source = f"from {file}" if file else "no file"
    if target is None:
        return f"nothing is configured ({source}): tasks run inline, in the call"
    return f"target {target!r}, {source}"


def _file() -> Iterator[Finding]:
    """Warn of a named file that is not to be trusted."""
    file = file_in_force()
    if file is not None and (doubt := foreign(file)) is not None:
        yield Finding("", "warning", f"{file} {doubt}, who can take this program's work")


def _endpoint() -> Iterator[Finding]:
    """Show the files of the endpoint; what is wrong with it is among the problems."""
    configuration = state.snapshot.configuration
    if not configuration.settings.endpoint:
        return
    # Wrong settings of the endpoint are among the problems already.
    with contextlib.suppress(ConfigurationError):
        files = paths_in(configuration.endpoint())
        if files:
            words = ", ".join(f"{key} {text}" for key, text in files.items())
            yield Finding("", "ok", f"[endpoint] {words}")


def _variables() -> Iterator[Finding]:
    for name in ignored_variables(os.environ, Settings.model_fields):
        if is_of_a_service(name):
            message = f"variable {name} is ignored: Kubernetes sets it for a service of that name"
            yield Finding("", "ok", message)
        else:
            yield Finding("", "warning", f"variable {name} is not a setting: it is ignored")


def _modules() -> Iterator[Finding]:
    try:
        import_modules()
    except ConfigurationError as exc:
        yield Finding("", "error", str(exc))
        return
    names = ", ".join(current().modules)
    count = len(catalogue.all())
    # Without modules there is nothing to count; `_workers` warns if a worker needs them.
    if names:
        yield Finding("", "ok", f"{count} task{'' if count == 1 else 's'} from {names}")


def _workers() -> Iterator[Finding]:
    """Say what the workers of the target would lack."""
    lack = lacks_posix()
    able = [each for each in dispatchers().values() if each.capabilities.worker]
    for each in able:
        if each.posix_worker and lack is not None:
            # Without a library the queue is on this machine, and so must be its worker.
            severity: Severity = "error" if each.library is None else "warning"
            yield Finding(each.alias, severity, needs_posix(each, lack))
    if able and not any(task.implemented for task in catalogue.all()):
        yield Finding("", "warning", no_tasks())


def _dispatchers(*, contact: bool) -> Iterator[Finding]:
    known = problems(contact=contact)
    for each in known:
        yield Finding(each.alias, each.severity, each.message)
    # A dispatcher that cannot be built would only be reported a second time.
    broken = {each.alias for each in known if each.severity == "error"}
    for alias in sorted(state.snapshot.aliases() - broken):
        yield from _stores(alias, get_dispatcher(alias), contact=contact)
    if not broken:
        yield from _workers()


def _stores(alias: str, dispatcher: BaseDispatcher, *, contact: bool) -> Iterator[Finding]:
    found = [*_store_findings(alias, dispatcher, contact=contact)]
    yield from found
    if all(each.severity != "error" for each in found):
        reached = ", reached" if contact else ""
        files = "".join(f", {key} {text}" for key, text in paths_in(dispatcher.options).items())
        runs = f", run by {dispatcher.run_by}" if dispatcher.run_by else ""
        yield Finding(alias, "ok", f"backend {dispatcher.name!r}{files}{runs}{reached}")


def _store_findings(alias: str, dispatcher: BaseDispatcher, *, contact: bool) -> Iterator[Finding]:
    """Open the stores that are configured; with contact, ask them something harmless."""
    options = dispatcher.options
    for option, spec in (
        ("dead_letters", options.dead_letters),
        ("idempotency", options.idempotency),
    ):
        if spec is None:
            continue
        try:
            for warning in _open(option, spec, contact=contact):
                yield Finding(alias, "warning", f"the store of {option}: {warning}")
        except ConfigurationError as exc:
            yield Finding(alias, "error", str(exc))
        except Exception as exc:  # noqa: BLE001 - a store is foreign code
            text = without_passwords(f"{option} = {spec!r} cannot be used: {cause(exc)}", spec)
            yield Finding(alias, "error", text)


def _open(option: str, spec: str, *, contact: bool) -> Iterable[str]:
    """Open a store; with contact, reach it, and return what it warns of, if it can."""
    store: Any = dead_letters(spec) if option == "dead_letters" else idempotency(spec)
    if not contact:
        return ()
    if option == "dead_letters":
        store.list(limit=1)
    else:
        # Harmless: a claim of that name and owner is never made.
        store.release("dispatchers doctor", "dispatchers doctor")
    warnings: Callable[[], Iterable[str]] = getattr(store, "warnings", tuple)
    return warnings()


def _tasks() -> Iterator[Finding]:
    for each in misspelt_overrides():
        yield Finding(each.alias, each.severity, each.message)
    for task in catalogue.all():
        for severity, message in misfits(task):
            yield Finding(task.name, severity, message)


def _workflows(*, contact: bool) -> Iterator[Finding]:
    if any(task.is_workflow for task in catalogue.all()):
        # Late: workflows bring asyncio, which most commands do without.
        from ._doctor_workflows import workflow_findings

        yield from (Finding(*each) for each in workflow_findings(contact=contact))
