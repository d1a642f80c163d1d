"""Findings of `dispatchers doctor` about workflows: their journal, and the lint of their code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from dispatchers._config.api import current, resolve
from dispatchers._errors import ConfigurationError, RejectedError
from dispatchers._journal.loading import AUTO, CONTACT, journal, journal_name
from dispatchers._models.redaction import shown
from dispatchers._runtime.importing import cause
from dispatchers._tasks.task import catalogue
from dispatchers.workflows import Workflow
from dispatchers.workflows._lint import Finding, lint
from dispatchers.workflows._sweep import refuse_memory

__all__ = ["workflow_findings"]

Found = tuple[str, Literal["ok", "warning", "error"], str]


def workflow_findings(*, contact: bool) -> Iterator[Found]:
    """Return subject, severity and message of each finding.

    Args:
        contact: Reach the journal as well.
    """
    flows = [task for task in catalogue.all() if isinstance(task, Workflow)]
    if flows:
        yield from _of_journal(contact=contact)
        yield from _of_memory(flows)
    for flow in flows:
        for version in flow.versions.values():
            for each in lint(version.function):
                yield flow.name, "warning", f"{_place(each)}: {each.message}"


def _of_journal(*, contact: bool) -> Iterator[Found]:
    try:
        found = journal()
        if contact:
            found.look("dispatchers doctor", timeout=CONTACT)
    except Exception as exc:  # noqa: BLE001 - a journal is foreign code
        # One that is named is among the problems of the configuration, whether tasks use it or not.
        if current().workflows == AUTO:
            yield "", "error", _problem(exc)
        return
    yield "", "ok", f"workflows are recorded in {shown(journal_name())}{', reached' * contact}"


def _problem(exc: Exception) -> str:
    if isinstance(exc, ConfigurationError):
        return str(exc)
    return f"the journal of workflows cannot be used: {cause(exc)}"


def _of_memory(flows: Iterable[Workflow[..., Any]]) -> Iterator[Found]:
    """Return the dispatchers whose workers would refuse a journal within one process."""
    for alias in sorted({flow._alias() for flow in flows}):
        # What is wrong with a dispatcher, or the journal, is told elsewhere.
        with suppress(ConfigurationError, RejectedError):
            dispatcher = resolve(alias)
            try:
                refuse_memory(dispatcher)
            except ConfigurationError as exc:
                yield alias, "error", str(exc)


def _place(found: Finding) -> str:
    """Return file and line, the file from the working directory where it is below."""
    file, here = Path(found.file), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{found.line}"
