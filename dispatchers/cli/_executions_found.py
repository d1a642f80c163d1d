"""Executions of the journal, by id, key or the beginning of either."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from dispatchers._errors import ConfigurationError, nearest
from dispatchers._journal.errors import JournalError
from dispatchers._journal.loading import MEMORY, journal, journal_name
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Query, Record
from dispatchers._runtime.importing import cause

from ._surroundings import import_modules, selected_target

__all__ = ["TIMEOUT", "asked", "find", "key_of", "matching", "opened"]

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds that the journal has for each answer."""
PAGE = 200
"""Executions that are asked for at a time."""
SHOWN = 3
"""Ids that the message about an ambiguous one names."""


def opened(target: str | None) -> Journal:
    """Return the journal of the selected target.

    Raises:
        ConfigurationError: There is none, or a module of the configuration cannot be imported.
    """
    # The modules first: they may register the journal's or the dispatcher's parts, and an
    # execution that is woken in this process needs its code.
    import_modules()
    selected_target(target)
    if journal_name() == MEMORY:
        raise ConfigurationError(
            "executions are recorded in the memory of the process that runs them, which no "
            'command can read: write workflows = "sqlite:/path/to/file"'
        )
    return journal()


def asked(call: Callable[[], T]) -> T:
    """Ask the journal.

    Raises:
        ConfigurationError: It did not answer; one line says why.
    """
    try:
        return call()
    except ConfigurationError:
        raise
    except JournalError as exc:
        raise ConfigurationError(str(exc)) from exc
    except Exception as exc:
        raise ConfigurationError(f"the journal could not be asked: {cause(exc)}") from exc


def matching(known: Journal, query: Query, limit: int | None = None) -> Iterator[Record]:
    """Return executions youngest first, page by page.

    Args:
        known: The journal.

        query: The choice; its limit is not looked at.

        limit: At most so many; None is all.
    """
    return islice(_pages(known, query), limit)


def _pages(known: Journal, query: Query) -> Iterator[Record]:
    before, seen = query.before, frozenset[str]()
    while True:
        asking = query._replace(limit=PAGE, before=before)
        page = asked(partial(known.find, asking, timeout=TIMEOUT))
        fresh = [record for record in page if record.id not in seen]
        yield from fresh
        if len(page) < PAGE or not fresh:
            return
        # One instant more, as others may have begun with the last of the page.
        before = math.nextafter(page[-1].created_at, math.inf)
        seen = frozenset(record.id for record in page)


def key_of(record: Record) -> str:
    """Return the key that an execution was started with."""
    return record.id.removeprefix(f"{record.workflow}/")


def find(known: Journal, text: str) -> Record:
    """Return the execution of an id or a key, or of the unique beginning of one.

    Raises:
        ConfigurationError: There is none, or there are several.
    """
    if (record := asked(lambda: known.look(text, timeout=TIMEOUT))) is not None:
        return record
    near = list(matching(known, Query(id_part=text)))
    # The whole key first: it may also be the beginning of another.
    exact = [record for record in near if key_of(record) == text]
    begun = [record for record in near if record.id.startswith(text) or _begins(record, text)]
    return _only(known, exact or begun, text)


def _begins(record: Record, text: str) -> bool:
    return key_of(record).startswith(text)


def _only(known: Journal, found: Sequence[Record], text: str) -> Record:
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError(f"there is no execution {text!r}{_near(known, text)}")
    ids = ", ".join(record.id for record in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise ConfigurationError(
        f"{len(found)} executions are meant by {text!r}, {ids}{more}: write more of the id"
    )


def _near(known: Journal, text: str) -> str:
    """Return the nearest id or key of the youngest executions, in words."""
    young = matching(known, Query(), PAGE)
    names = [name for record in young for name in (key_of(record), record.id)]
    return nearest(text, names, lists=False) or ": see dispatchers executions list"
