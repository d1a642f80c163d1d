"""Journals of executions, for authors of one: the protocol and its values.

`workflows = "package.module:attribute"` names one; `dispatchers.testing.journals` judges it.
`MemoryJournal` is the reference; `limits` and `rules` are modules of functions that every journal
calls within its transactions, so that limits, resume and restart mean the same everywhere.
"""

from __future__ import annotations

from dispatchers._journal import limits, rules
from dispatchers._journal.errors import JournalError, LimitError
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.protocol import (
    LEASE,
    LONGEST_WAIT,
    REMEMBERED,
    UNREAD_AFTER,
    CountingJournal,
    Journal,
)
from dispatchers._journal.values import (
    LEAVING,
    Answer,
    Answered,
    Command,
    Commit,
    Committed,
    Count,
    Entry,
    EntryKind,
    Query,
    Record,
    Refusal,
    Start,
    Status,
    Turn,
    Unsent,
    WakeUp,
)

__all__ = [
    "LEASE",
    "LEAVING",
    "LONGEST_WAIT",
    "REMEMBERED",
    "UNREAD_AFTER",
    "Answer",
    "Answered",
    "Command",
    "Commit",
    "Committed",
    "Count",
    "CountingJournal",
    "Entry",
    "EntryKind",
    "Journal",
    "JournalError",
    "LimitError",
    "MemoryJournal",
    "Query",
    "Record",
    "Refusal",
    "Start",
    "Status",
    "Turn",
    "Unsent",
    "WakeUp",
    "limits",
    "rules",
]
