"""The journal that `workflows` names: `auto`, `memory`, `sqlite:PATH` or `module:attribute`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

from dispatchers._config.api import current, get_dispatcher
from dispatchers._config.container import Snapshot
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._errors import ConfigurationError, nearest
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.protocol import Journal
from dispatchers._models.paths import SQLITE, absolute_spec
from dispatchers._models.problem import Problem
from dispatchers._models.redaction import shown, without_passwords
from dispatchers._runtime.importing import cause, import_object
from dispatchers._stores.loading import load_object

__all__ = ["in_place", "journal", "journal_name", "journal_of", "problems_of_journal"]

AUTO = "auto"
MEMORY = "memory"
KNOWN = (AUTO, MEMORY, "sqlite:PATH")
WAYS = "write sqlite:PATH, memory or 'package.module:attribute'"
METHODS = tuple(name for name in vars(Journal) if not name.startswith("_"))
"""The parts of the protocol; `claims` is annotated only."""


def journal() -> Journal:
    """Return the journal of the settings in force; one instance per process and name.

    Raises:
        ConfigurationError: They name none, or the default dispatcher has none of its own.
    """
    found = _in_place[-1] if _in_place else journal_of(journal_name())
    seen = as_seen_by_run.get()
    return found if seen is None else seen(found)


as_seen_by_run: ContextVar[Callable[[Journal], Journal] | None] = ContextVar(
    "dispatchers_journal", default=None
)
"""How a run sees the journal whose worker records its changes; None sees it as it is."""


def journal_name() -> str:
    """Return the name of the journal of the settings in force: `memory`, `sqlite:PATH` ...

    Raises:
        ConfigurationError: The default dispatcher has none of its own.
    """
    spec = current().workflows
    return _automatic(get_dispatcher()) if spec == AUTO else spec


_in_place: list[Journal] = []


@contextmanager
def in_place(journal: Journal) -> Generator[None]:
    """Use a journal in place of the one that the settings name, in the whole process."""
    _in_place.append(journal)
    try:
        yield
    finally:
        _in_place.remove(journal)


def _automatic(dispatcher: BaseDispatcher) -> str:
    # By getattr: any object that dispatches is taken for a dispatcher.
    spec: str | None = getattr(dispatcher, "journal", None)
    if spec is None:
        raise ConfigurationError(
            f"dispatcher {dispatcher.alias!r} ({dispatcher.name}) has no journal for workflows: "
            'write workflows = "sqlite:/path/to/file" at the top of the configuration, '
            "or set DISPATCHERS_WORKFLOWS"
        )
    return spec


def journal_of(spec: str) -> Journal:
    """Return the journal of a name; one instance per process.

    Raises:
        ConfigurationError: It names none.
    """
    # Each turn and step asks: the usual one is absolute already.
    return _opened(spec if spec.startswith(f"{SQLITE}/") else str(absolute_spec(spec)))


@cache
def _opened(spec: str) -> Journal:
    if spec == "memory":
        return MemoryJournal()
    if spec.startswith(SQLITE):
        return _sqlite(spec.removeprefix(SQLITE))
    # First: for a mistyped address, a module that is not found would be an odd answer.
    if "://" in spec or "@" in spec or ":" not in spec:
        words = nearest(spec, KNOWN) if ":" not in spec else ""
        raise ConfigurationError(f"workflows = {shown(spec)!r} names no journal: {WAYS}{words}")
    found = load_object("workflows", spec)
    # A class is built without arguments; an instance or module is taken as it is.
    return _checked(spec, found() if isinstance(found, type) else found)


def _sqlite(path: str) -> Journal:
    if not path:
        raise ConfigurationError("workflows = 'sqlite:' names no file: write sqlite:PATH")
    opens: Any = import_object("dispatchers.sqlite:SQLiteJournal")
    return cast("Journal", opens(path))


def _checked(spec: str, found: object) -> Journal:
    missing = [name for name in (*METHODS, "claims") if not hasattr(found, name)]
    if missing:
        raise ConfigurationError(
            f"workflows = {spec!r} is no journal: {type(found).__name__} lacks {', '.join(missing)}"
        )
    return cast("Journal", found)


def problems_of_journal(snapshot: Snapshot, *, contact: bool) -> Iterator[Problem]:
    """Return the problem of the setting `workflows`; `auto` has one only once a journal is used."""
    configuration = snapshot.configuration
    spec = configuration.settings.workflows
    if spec == AUTO:
        return
    try:
        found = journal_of(spec)
        if contact:
            found.look("dispatchers doctor", timeout=CONTACT)
    except ConfigurationError as exc:
        yield Problem("", "", "error", f"{exc} ({configuration.layer.origin_of(('workflows',))})")
    except Exception as exc:  # noqa: BLE001 - a journal is foreign code
        text = f"workflows = {spec!r} cannot be used: {cause(exc)}"
        yield Problem("", "", "error", without_passwords(text, spec))


CONTACT = 5.0
"""Seconds for reaching a journal in a check."""
