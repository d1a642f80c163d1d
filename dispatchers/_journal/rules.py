"""Rules that every journal follows: which entries, commands and timers count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

from dispatchers._journal.failure import failure
from dispatchers._journal.limits import AWAITED
from dispatchers._journal.protocol import LONGEST_WAIT
from dispatchers._journal.values import Answer, Commit, Entry, EntryKind, Record, Status
from dispatchers._models.envelope import EnvelopeError, decode

RESUMABLE = frozenset({Status.FAILED, Status.CANCELLED, Status.TERMINATED, Status.STUCK})
"""Status of executions that `resume` lets go on."""

_ANSWERS = frozenset({EntryKind.DONE, EntryKind.FAILED, EntryKind.FIRED})
_CAUSES = {Status.FAILED: EntryKind.FAILED, Status.CANCELLED: EntryKind.CANCEL}
_LEAVES_AFTER = {Status.COMPLETED: frozenset({EntryKind.SEND, EntryKind.CHILD})}
_TOLD = frozenset({EntryKind.SIGNAL, EntryKind.CANCEL})


def leaves_after(status: Status) -> frozenset[EntryKind]:
    """Return the kinds of commands that still leave after an end; a restart is as `COMPLETED`."""
    return _LEAVES_AFTER.get(status, frozenset({EntryKind.SEND}))


def answer_of(child: Record, at: float) -> Answer:
    """Return the answer to the parent's command that the end of a child is."""
    if child.status is Status.COMPLETED:
        return Answer(EntryKind.DONE, child.output or b"null", at, child.id)
    word = child.status.name.lower()
    output = child.output or failure(word, child.why or word)
    return Answer(EntryKind.FAILED, output, at, child.id)


def request_id(execution: str, number: int, generation: int = 0) -> str:
    """Return the id of a command's request, the same in every process.

    Args:
        execution: The id.

        number: Of the command.

        generation: Of the execution, when the command was issued. Backends would take the id of a
            number that was issued before for a duplicate.
    """
    text = f"{execution}/{number}/{generation}" if generation else f"{execution}/{number}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


def is_forgotten(
    source: str, execution: str, number: int, generation: int, body: Callable[[], bytes | None]
) -> bool:
    """Tell whether a step or child is of a command that was forgotten, and issued anew since.

    Args:
        source: The id of its request, or of the child; empty is not known.

        execution: The id.

        number: Of the command.

        generation: Of the execution, now.

        body: Reads the envelope of the command that has the number now.
    """
    if not (source and generation) or source == request_id(execution, number, generation):
        return False
    try:
        request = decode(body() or b"")
    except EnvelopeError:
        return False
    # Of the first generation, or written by a version that gave every command this id.
    if request.id == request_id(execution, number):
        return False
    return source not in (request.id, f"{request.task}/{request.key}")


def due_timers(timers: Mapping[int, float], wake_at: float | None, now: float) -> list[int]:
    """Return the numbers of the timers to fire, in their order.

    Args:
        timers: Instants by number, of those that have not fired.

        wake_at: The earliest instant that the code awaits; timers before it are cancelled.

        now: Seconds since the epoch.
    """
    if wake_at is None:
        return []
    due = [(at, number) for number, at in timers.items() if wake_at <= at <= now]
    return [number for _, number in sorted(due)]


def waited(record: Record, now: float) -> float:
    """Return the seconds for which an execution has wanted a turn.

    Args:
        record: The execution.

        now: Seconds since the epoch.
    """
    timer = record.wake_at if record.wake_at is not None and record.wake_at <= now else 0.0
    return max(0.0, now - max(record.updated_at, timer))


def pause_after(waited: float, unread_after: float) -> float:
    """Return the seconds after which `due` takes a wake-up for lost that no turn has followed.

    As long as the execution had waited already: each time it waits twice as long.

    Args:
        waited: Seconds for which the execution had wanted a turn when it was woken.

        unread_after: `UNREAD_AFTER`, or what the journal has in its place.
    """
    return min(max(waited, unread_after), LONGEST_WAIT)


def after_restart(entries: Iterable[Entry], commit: Commit) -> list[Entry]:
    """Return what a restart keeps: signals and cancellations that no code has received."""
    return _renumbered(
        entry
        for entry in entries
        if entry.kind in _TOLD and (entry.seq > commit.seen or entry.seq in commit.unread)
    )


def after_resume(entries: Iterable[Entry], forgotten: set[int]) -> list[Entry]:
    """Return what `resume` keeps: no forgotten command, no answer to one, no cancellation."""
    return _renumbered(
        entry
        for entry in entries
        if entry.number not in forgotten and entry.kind is not EntryKind.CANCEL
    )


def forgotten(status: Status, entries: Sequence[Entry], number: int | None) -> set[int]:
    """Return the numbers of the commands that `resume` deletes, as `Journal.resume` says."""
    named = _after_cause(status, entries) if number is None else _since(entries, number)
    # Steps that were under way at the end did not run: all of them are issued anew.
    return named if status is Status.STUCK else named | _open(entries)


def _since(entries: Sequence[Entry], number: int) -> set[int]:
    return {n for n in _commands(entries) if n >= number}


def _after_cause(status: Status, entries: Sequence[Entry]) -> set[int]:
    causes = [entry for entry in entries if entry.kind is _CAUSES.get(status)]
    if not causes:
        return set()
    last = causes[-1]
    later = set(_commands(entries[last.seq :]))
    return later if last.number is None else later | {last.number}


def _open(entries: Sequence[Entry]) -> set[int]:
    answered = {entry.number for entry in entries if entry.kind in _ANSWERS}
    return {n for n, kind in _commands(entries).items() if kind in AWAITED} - answered


def _commands(entries: Iterable[Entry]) -> dict[int, EntryKind]:
    return {e.number: e.kind for e in entries if e.kind.is_command and e.number is not None}


def _renumbered(entries: Iterable[Entry]) -> list[Entry]:
    return [entry._replace(seq=seq) for seq, entry in enumerate(entries, 1)]
