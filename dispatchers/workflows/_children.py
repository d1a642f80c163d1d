"""Children of an execution that it has given up."""

from __future__ import annotations

from collections.abc import Collection

from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Entry, EntryKind, Record
from dispatchers._models.envelope import decode
from dispatchers._runtime import clock
from dispatchers._worker.waking import woken

__all__ = ["cancel_children"]

TIMEOUT = 5.0
"""Seconds for one call of the journal."""


def cancel_children(journal: Journal, parent: Record, numbers: Collection[int]) -> None:
    """Cancel children that nothing awaits any more; before that is recorded of the parent.

    Args:
        journal: Where both are recorded.

        parent: The execution that has given them up.

        numbers: Of its commands. One that is new was not recorded, and has not left.
    """
    for entry in journal.entries(parent.id, timeout=TIMEOUT):
        if entry.kind is EntryKind.CHILD and entry.number in numbers:
            _cancel(journal, parent, entry)


def _cancel(journal: Journal, parent: Record, entry: Entry) -> None:
    request = decode(entry.body or b"")
    answered = journal.deliver(
        f"{request.task}/{request.key}",
        request.task,
        EntryKind.CANCEL,
        f"given up by {parent.id}",
        None,
        # That of its parent's end, which cancels the children, too: it is to be seen once.
        source=f"{parent.id}/{parent.generation}",
        at=clock.time(),
        timeout=TIMEOUT,
    )
    woken(answered.wake)
