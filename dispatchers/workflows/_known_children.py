"""Answers to a parent whose child is there already, and will not begin for it."""

from __future__ import annotations

from dispatchers._journal.failure import Failure
from dispatchers._journal.protocol import Journal
from dispatchers._journal.values import Answer, EntryKind, Record, Status
from dispatchers._runtime import clock
from dispatchers._worker.waking import woken

__all__ = ["answer_for"]

TIMEOUT = 5.0
"""Seconds for one call of the journal."""


def answer_for(journal: Journal, child: Record, parent: str, number: int, source: str) -> None:
    """Answer a parent that awaits an execution which is there already.

    One that it has begun itself, and that goes on, answers by its end.

    Args:
        journal: Where both are recorded.

        child: The execution.

        parent: The id of the one that awaits it.

        number: The number of the parent's command.

        source: The id of its request.

    Raises:
        JournalError: The journal could not be asked.
    """
    is_own = (child.parent, child.parent_number) == (parent, number)
    if is_own and not child.status.is_end:
        return
    answer = _end_of(child) if is_own else _taken(child)
    answered = journal.answer(parent, number, answer._replace(source=source), timeout=TIMEOUT)
    woken(answered.wake)


def _end_of(child: Record) -> Answer:
    is_done = child.status is Status.COMPLETED
    kind = EntryKind.DONE if is_done else EntryKind.FAILED
    return Answer(kind, child.output or b"null", clock.time())


def _taken(child: Record) -> Answer:
    by = f"a child of {child.parent!r}" if child.parent else "no child"
    failure = Failure(
        f"the execution {child.id!r} exists already, as {by}: give the child an "
        "idempotency_key of its own",
        category="conflict",
    )
    return Answer(EntryKind.FAILED, failure.encode(), clock.time())
