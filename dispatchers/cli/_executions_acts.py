"""Changes by `dispatchers executions`: cancel, terminate, resume, export, forget, sweep."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dispatchers._errors import ConfigurationError
from dispatchers._journal.failure import for_people
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Answered, EntryKind, Record
from dispatchers._models.fields import new_id
from dispatchers._worker.waking import woken
from dispatchers.workflows._export import exported
from dispatchers.workflows._story_words import instant
from dispatchers.workflows._sweep import sweep as swept

from ._executions_found import TIMEOUT, asked, find, opened
from ._exit import Exit
from ._screen import Screen

__all__ = ["cancel", "export", "forget", "resume", "sweep", "terminate"]

LATER = "recorded, but not woken: the sweep of a worker does it"
AT_ONCE = 500
"""Executions that are deleted, or woken, in one call of the journal."""


class Result(NamedTuple):
    """Result of acting on one execution."""

    id: str
    word: str
    message: str = ""


Act = Callable[[Journal, Record, argparse.Namespace], Answered]


# Cancel, terminate, resume.


def cancel(args: argparse.Namespace, shown: Screen) -> Exit:
    """Cancel executions."""
    return _each(args, shown, "cancelling", _cancelled)


def _cancelled(known: Journal, record: Record, args: argparse.Namespace) -> Answered:
    return known.deliver(
        record.id,
        record.workflow,
        EntryKind.CANCEL,
        for_people(args.reason),
        None,
        source=new_id(),
        at=time.time(),
        timeout=TIMEOUT,
    )


def terminate(args: argparse.Namespace, shown: Screen) -> Exit:
    """Terminate executions."""
    return _each(args, shown, "terminated", _terminated)


def _terminated(known: Journal, record: Record, args: argparse.Namespace) -> Answered:
    why = for_people(args.reason) or "terminated from the command line"
    return known.terminate(record.id, why, at=time.time(), timeout=TIMEOUT)


def resume(args: argparse.Namespace, shown: Screen) -> Exit:
    """Let executions go on."""
    if args.number is not None and len(args.ids) > 1:
        raise ConfigurationError("--from goes with one execution: its numbers are its own")
    return _each(args, shown, "resumed", _resumed)


def _resumed(known: Journal, record: Record, args: argparse.Namespace) -> Answered:
    if args.number is not None:
        _check_number(known, record, args.number)
    return known.resume(record.id, number=args.number, at=time.time(), timeout=TIMEOUT)


def _check_number(known: Journal, record: Record, number: int) -> None:
    entries = asked(lambda: known.entries(record.id, timeout=TIMEOUT))
    numbers = [each.number for each in entries if each.kind.is_command and each.number]
    if number not in numbers:
        range_ = f"they are {min(numbers)} to {max(numbers)}" if numbers else "it has none"
        raise ConfigurationError(f"execution {record.id!r} has no command {number}: {range_}")


def _each(args: argparse.Namespace, shown: Screen, word: str, act: Act) -> Exit:
    known = opened(args.target)
    # All are looked up before anything is done: a mistyped one changes nothing.
    records = [find(known, each) for each in args.ids]
    results = [_acted(known, record, args, word, act) for record in records]
    shown.table(("execution", "state", "why"), results)
    return Exit.PROBLEMS if any(each.word == "kept" for each in results) else Exit.OK


def _acted(known: Journal, record: Record, args: argparse.Namespace, word: str, act: Act) -> Result:
    answered = asked(lambda: act(known, record, args))
    if not answered.first:
        return Result(record.id, "kept", f"it is {record.status.name.lower()}")
    return Result(record.id, word, "" if woken(answered.wake) else LATER)


# Export.


def export(args: argparse.Namespace, shown: Screen) -> Exit:
    """Write executions as JSON."""
    known = opened(args.target)
    records = [find(known, each) for each in args.ids]
    if args.out is None and len(records) > 1:
        raise ConfigurationError("several executions need --out DIR: a file is written for each")
    for record in records:
        entries = asked(partial(known.entries, record.id, timeout=TIMEOUT))
        found = exported(record, entries)
        if args.out is None:
            shown.json(found)
        else:
            shown.line(str(_written(Path(args.out), record.id, found)))
    return Exit.OK


def _written(folder: Path, name: str, found: dict[str, Any]) -> Path:
    """Write a file that the execution alone has."""
    file = folder / _file_name(name)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # For this user only, as the file holds all values.
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be written: {exc.strerror}") from exc
    return file


def _file_name(name: str) -> str:
    """Return a file's name that no other id has: letters outside of ASCII are kept."""
    safe = "".join(c if c.isalnum() or c in "._-" else f"%{ord(c):02X}" for c in name)
    return f"{safe}.json"


# Forget and sweep.


def forget(args: argparse.Namespace, shown: Screen) -> Exit:
    """Delete executions that ended."""
    known = opened(args.target)
    before = time.time() - args.older_than
    _confirm(f"delete for ever all executions that ended before {instant(before)}?", args, shown)
    total = 0
    with shown.counting("forgotten") as bar:
        while gone := asked(lambda: known.forget(before=before, limit=AT_ONCE, timeout=TIMEOUT)):
            total += gone
            bar.show(total)
    shown.line(f"{total} forgotten")
    return Exit.OK


def _confirm(question: str, args: argparse.Namespace, shown: Screen) -> None:
    """Ask before something is deleted.

    Raises:
        ConfigurationError: The answer is no, or there is no terminal to ask.
    """
    if args.yes:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise ConfigurationError("forget deletes for ever: say --yes")
    shown.note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigurationError("nothing was deleted")


def sweep(args: argparse.Namespace, shown: Screen) -> Exit:
    """Wake executions that want a turn."""
    opened(args.target)
    shown.line(f"{asked(swept)} woken")
    return Exit.OK
