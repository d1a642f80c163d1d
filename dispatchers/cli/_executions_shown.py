"""Tables of `dispatchers executions list`, `show` and `journal`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice

from dispatchers._errors import nearest
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Query, Record, Status
from dispatchers._tasks.task import catalogue
from dispatchers.workflows._story import Line, story, waits_for
from dispatchers.workflows._story_words import (
    BEFORE_START,
    arguments,
    failure,
    instant,
    parsed,
    value,
)

from ._executions_found import TIMEOUT, asked, find, matching, opened
from ._exit import Exit
from ._screen import Screen

__all__ = ["show_journal", "show_list", "show_one"]

PAGE = 100
"""Executions that a table shows unless told otherwise."""


def show_list(args: argparse.Namespace, shown: Screen) -> Exit:
    """List executions."""
    known = opened(args.target)
    limit = args.limit or (None if args.json else PAGE)
    # One more than is shown tells whether there are more.
    found = matching(known, _query(args, known), limit and limit + 1)
    kept = islice(found, limit)
    if args.json:
        shown.json_list(_facts(each) for each in kept)
    elif rows := [_row(each) for each in kept]:
        shown.table(("execution", "status", "began", "what of it"), rows)
    else:
        shown.note(f"no executions{_hint(args.workflow)}")
    if limit is not None and next(found, None) is not None:
        shown.note(f"there are more than these {limit}, the youngest: --limit N shows more")
    return Exit.OK


def _query(args: argparse.Namespace, known: Journal) -> Query:
    return Query(
        workflow=args.workflow,
        status=[Status[word.upper()] for word in args.status],
        parent=None if args.parent is None else find(known, args.parent).id,
        id_part=args.key,
        before=None if args.older_than is None else time.time() - args.older_than,
    )


def _hint(workflow: str | None) -> str:
    """Return the nearest task's name, if the workflow is none that is registered here."""
    if workflow is None or catalogue.find(workflow) is not None:
        return ""
    names = [task.name for task in catalogue.all()]
    return f" of workflow {workflow!r}{nearest(workflow, names, lists=False)}"


def _row(record: Record) -> tuple[str, ...]:
    return record.id, record.status.name.lower(), instant(record.created_at), _in_short(record)


def _in_short(record: Record) -> str:
    """Return the reason of an end, or the next timer; what else is awaited only entries tell."""
    if record.status is Status.COMPLETED:
        return f"ended {instant(record.finished_at or record.updated_at)}"
    if record.status is Status.EXPECTED:
        return BEFORE_START
    if record.status is not Status.RUNNING:
        return record.why or failure(record.output)
    if record.seen < record.head:
        return "wants a turn"
    return "-" if record.wake_at is None else f"timer until {instant(record.wake_at)}"


def _facts(record: Record) -> dict[str, object]:
    """Return an execution for programs, without its values."""
    return {
        "id": record.id,
        "workflow": record.workflow,
        "version": record.version,
        "status": record.status.name.lower(),
        "why": record.why,
        "parent": record.parent,
        "dispatcher": record.dispatcher,
        "queue": record.queue,
        "entries": record.head,
        "created_at": _iso(record.created_at),
        "updated_at": _iso(record.updated_at),
        "finished_at": _iso(record.finished_at),
        "wake_at": _iso(record.wake_at),
    }


def _iso(at: float | None) -> str | None:
    try:
        return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # a timer beyond the calendar
        return None


# One.


def show_one(args: argparse.Namespace, shown: Screen) -> Exit:
    """Show one execution."""
    known = opened(args.target)
    record = find(known, args.id)
    lines = _story(known, record, whole=args.values)
    if args.json:
        shown.json({**_facts(record), **_values(record), "waits_for": waits_for(record, lines)})
        return Exit.OK
    facts = _fields(record, known, whole=args.values)
    facts |= {"waits for": waits_for(record, lines)}
    shown.fields({name: text for name, text in facts.items() if text})
    return Exit.OK


def _story(known: Journal, record: Record, *, whole: bool) -> list[Line]:
    entries = asked(lambda: known.entries(record.id, timeout=TIMEOUT))
    unsent = asked(lambda: known.unsent(record.id, timeout=TIMEOUT))
    return story(record, entries, unsent, whole=whole)


def _values(record: Record) -> dict[str, object]:
    request = parsed(record.input)
    given = request.get("payload") if isinstance(request, Mapping) else None
    return {"arguments": given, "state": parsed(record.state), "output": parsed(record.output)}


def _fields(record: Record, known: Journal, *, whole: bool) -> dict[str, str]:
    """Return the facts of an execution in words; those that do not apply are empty."""
    ended = record.finished_at
    children = list(matching(known, Query(parent=record.id), PAGE))
    return {
        "execution": record.id,
        "status": record.status.name.lower(),
        "why": record.why or "",
        "workflow": f"{record.workflow}, version {record.version}",
        "arguments": arguments(record.input, whole=whole),
        "state": value(record.state, whole=whole),
        "result": value(record.output, whole=whole) if not record.why else "",
        "began": instant(record.created_at),
        "changed": instant(record.updated_at),
        "ended": "" if ended is None else instant(ended),
        "woken through": f"dispatcher {record.dispatcher!r}"
        + (f", queue {record.queue!r}" if record.queue else ""),
        "parent": f"{record.parent} (command {record.parent_number})" if record.parent else "",
        "children": ", ".join(f"{each.id} ({each.status.name.lower()})" for each in children),
        "entries": str(record.head),
    }


def show_journal(args: argparse.Namespace, shown: Screen) -> Exit:
    """Tell an execution's story."""
    known = opened(args.target)
    record = find(known, args.id)
    lines = _story(known, record, whole=args.values)
    waiting = waits_for(record, lines)
    if args.json:
        told = [{**each._asdict(), "at": _iso(each.at)} for each in lines]
        shown.json({**_facts(record), "journal": told, "waits_for": waiting})
        return Exit.OK
    shown.table(("no", "at", "what happened"), [_told(each) for each in lines])
    if waiting:
        shown.line(f"waits for {waiting}")
    return Exit.OK


def _told(line: Line) -> tuple[str, ...]:
    return "" if line.number is None else str(line.number), instant(line.at), line.words
