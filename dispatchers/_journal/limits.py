"""Limits of executions: anything beyond is refused, half-way is one warning.

A command beyond a limit never leaves: its whole commit is refused, and the execution is stuck until
its code is mended, mostly by `restart(...)`. An answer beyond becomes a failure `too_large` of its
step. A signal beyond is refused to its sender. Room for the answers of open commands is kept: what
was begun can always be answered.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from dispatchers._journal.errors import LimitError
from dispatchers._journal.failure import failure
from dispatchers._journal.values import Answer, Commit, EntryKind
from dispatchers._runtime.log import say

MAX_ENTRIES = 10_000
"""Entries of one execution."""

MAX_OPEN = 1_000
"""Steps, local steps and children of one execution that are not answered."""

MAX_ENTRY = 1 << 20
"""Bytes of one entry, of a result and of the state."""

MAX_JOURNAL = 64 << 20
"""Bytes of all entries of one execution."""

MAX_IDLE_TURNS = 5
"""Turns of one execution that failed one after the other before it is stuck."""

MAX_LOST_TURNS = 4
"""Turns of one execution that ended with their workers before it is stuck, with nothing recorded in
between. A fifth would have its message dead-lettered where one is delivered five times."""

AWAITED = frozenset({EntryKind.STEP, EntryKind.LOCAL, EntryKind.CHILD})
"""Commands that count as open until they are answered."""

_RESTART = "let it go on with a new journal before that, by `raise restart(...)`, then resume it"
_ELSEWHERE = "keep large values elsewhere and hand over their names"


class Counts(NamedTuple):
    """Entries of one execution in numbers."""

    entries: int
    """All entries; the place of the last."""
    open: int
    """Commands of the kinds in `AWAITED` that are not answered."""
    size: int
    """Bytes of the bodies of all entries."""

    def after(self, commit: Commit) -> Counts:
        """Return the counts once a commit is recorded."""
        # Loops, as each local step passes here twice.
        awaited, size = self.open, self.size
        for command in commit.commands:
            awaited += command.kind in AWAITED
            size += len(command.body or b"")
        for _, answer in commit.answers:
            size += len(answer.body)
        entries = self.entries + len(commit.commands) + len(commit.answers)
        return Counts(entries, awaited - len(commit.answers), size)


def refused(counts: Counts, commit: Commit) -> str | None:
    """Return why a commit goes beyond a limit, with the cure; None if it does not.

    A restart never does, as it deletes the entries.
    """
    if commit.restart is not None:
        return None
    if (why := _too_large(commit)) is not None:
        return why
    after = counts.after(commit)
    if after.open > MAX_OPEN and after.open > counts.open:
        return f"{after.open} commands are open, {MAX_OPEN} are allowed: await some before others"
    return _full(after) if commit.commands else None


def _too_large(commit: Commit) -> str | None:
    for command in commit.commands:
        if command.body is not None and len(command.body) > MAX_ENTRY:
            return _of_size(f"command {command.number} ({command.name})", command.body)
    if commit.output is not None and len(commit.output) > MAX_ENTRY:
        return _of_size("the result", commit.output)
    if commit.state is not None and len(commit.state) > MAX_ENTRY:
        return _of_size("the published state", commit.state)
    return None


def _of_size(name: str, body: bytes) -> str:
    return f"{name} has {len(body)} bytes, {MAX_ENTRY} are allowed: {_ELSEWHERE}"


def _full(counts: Counts) -> str | None:
    # The answers that are still to come have their room.
    if counts.entries + counts.open > MAX_ENTRIES:
        return f"the journal is full, {MAX_ENTRIES} entries are allowed: {_RESTART}"
    if counts.size > MAX_JOURNAL:
        return f"the journal is full, {MAX_JOURNAL} bytes are allowed: {_RESTART}"
    return None


def fitting(counts: Counts, answer: Answer) -> Answer:
    """Return an answer, or the failure `too_large` in place of one that is too large."""
    size = len(answer.body)
    if size > MAX_ENTRY:
        why = f"the answer has {size} bytes, {MAX_ENTRY} are allowed: {_ELSEWHERE}"
    elif counts.size + size > MAX_JOURNAL:
        why = f"the journal is full, {MAX_JOURNAL} bytes are allowed: {_ELSEWHERE}, or {_RESTART}"
    else:
        return answer
    return Answer(EntryKind.FAILED, failure("too_large", why), answer.at)


def fitted(counts: Counts, commit: Commit) -> Commit:
    """Return a commit whose answers are `fitting`."""
    answers = [(number, fitting(counts, each)) for number, each in commit.answers]
    return commit if answers == commit.answers else commit._replace(answers=answers)


def check_signal(execution: str, counts: Counts, body: bytes | None) -> None:
    """Check that a signal has room.

    Raises:
        LimitError: It has none.
    """
    size = len(body or b"")
    if size > MAX_ENTRY:
        raise LimitError(
            f"{execution}: a signal has {size} bytes, {MAX_ENTRY} are allowed: {_ELSEWHERE}"
        )
    if why := _full(Counts(counts.entries + 1, counts.open, counts.size + size)):
        raise LimitError(f"{execution}: no room for a signal: {why}")


def warn(execution: str, before: Counts, after: Counts) -> None:
    """Log once that an execution has come half-way to a limit."""
    limits = (("entries", MAX_ENTRIES), ("open commands", MAX_OPEN), ("bytes", MAX_JOURNAL))
    for (name, limit), was, now in zip(limits, before, after, strict=True):
        if was < limit // 2 <= now:
            say(logging.WARNING, "%s: %d %s, %d are allowed", execution, now, name, limit)
