"""Replaying what an execution has recorded from its start, and comparing what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic_core import from_json

from dispatchers._journal.values import Entry, Record, Status
from dispatchers._models.envelope import EnvelopeError
from dispatchers._payload.errors import DeclarationError, PayloadError
from dispatchers.workflows._replay import Replay
from dispatchers.workflows._turn import replayed
from dispatchers.workflows._versions import Versions

__all__ = ["ReplayError", "differences"]

COMPARED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
"""Ends that the code itself has reached."""


class ReplayError(AssertionError):
    """The code does not do again what is recorded of it."""


def differences(
    record: Record,
    entries: Sequence[Entry],
    versions: Versions,
    parked: Replay | None = None,
) -> Iterator[str]:
    """Replay an execution from its start, and yield in words how it differs from what is recorded.

    Args:
        record: The execution.

        entries: All of its entries.

        versions: The workflow's code, by number.

        parked: Its code as it waits at present, where it is at hand.
    """
    if record.version not in versions:
        known = ", ".join(map(str, sorted(versions)))
        yield f"it is on version {record.version}, the workflow has {known}"
        return
    try:
        replay = replayed(record, versions, entries)
    except (PayloadError, DeclarationError, EnvelopeError) as exc:
        yield f"the arguments that it began with do not fit the code: {exc}"
        return
    try:
        replay.feed(*(e for e in entries if e.seq <= record.seen and not e.kind.is_command))
        yield from _compared(replay, record, parked)
    finally:
        replay.close()


def _compared(replay: Replay, record: Record, parked: Replay | None) -> Iterator[str]:
    commands = replay.take_commands()
    if replay.mismatch is not None:
        yield replay.mismatch
    elif commands and record.status is not Status.STUCK:
        asked = f"{commands[0].kind.name.lower()} {commands[0].name}"
        yield f"command {commands[0].number}: the code asks for {asked}, nothing is recorded"
    else:
        yield from _compared_ends(replay, record)
        yield from _compared_waits(replay, parked)


def _compared_ends(replay: Replay, record: Record) -> Iterator[str]:
    end, status = replay.end, record.status
    if status in COMPARED and (end is None or end.status is not status):
        now = "waits for " + replay.waits_for if end is None else "ends " + end.status.name.lower()
        yield f"recorded is the end {status.name.lower()}, the code {now}"
    elif status is Status.RUNNING and end is not None:
        yield f"the code ends {end.status.name.lower()}, recorded is that it goes on"
    elif status is Status.COMPLETED and end and not _equal(end.output, record.output):
        yield "the code returns another value than the recorded one"
    elif replay.state is not None and not _equal(replay.state, record.state):
        yield "the code publishes another state than the recorded one"


def _equal(left: bytes | None, right: bytes | None) -> bool:
    return bool(from_json(left or b"null") == from_json(right or b"null"))


def _compared_waits(replay: Replay, parked: Replay | None) -> Iterator[str]:
    if parked is None:
        return
    for name in ("waits_for", "wake_at", "unreceived"):
        before, now = getattr(parked, name), getattr(replay, name)
        if before != now:
            yield f"{name.replace('_', ' ')} {before!r} becomes {now!r}"
