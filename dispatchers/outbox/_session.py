"""The end of a session's transaction: rows are certain after the outermost commit only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

__all__ = ["follow"]

Told = Callable[[bool], object]


class _Follower:
    """Those who wait for the end of the transactions of one session."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, Told]] = []
        """Each with the transaction, or savepoint, whose end it waits for."""
        self.committed: Any = None
        """The transaction, or savepoint, that was committed last."""

    def ended(self, transaction: Any) -> None:
        """Tell of the end, or wait for that of what is around a savepoint that was released."""
        mine = [told for of, told in self.waiting if of is transaction]
        self.waiting = [each for each in self.waiting if each[0] is not transaction]
        committed, self.committed = self.committed is transaction, None
        if committed and transaction.nested:
            self.waiting += [(transaction.parent, told) for told in mine]
            return
        for told in mine:
            told(committed)


KEY = "dispatchers_outbox"
"""Where a session has its follower: it goes with the session."""


def follow(session: Any, told: Told) -> None:
    """Have a function called with true after the commit, and with false after a rollback."""
    _listen()
    follower = session.info.setdefault(KEY, _Follower())
    follower.waiting.append((_innermost(session), told))


def _innermost(session: Session) -> Any:
    return session.get_nested_transaction() or session.get_transaction()


def _listen() -> None:
    """Listen to all sessions, once: to do so for each costs more than the row."""
    if not event.contains(Session, "after_commit", _committed):
        event.listen(Session, "after_commit", _committed)
        event.listen(Session, "after_transaction_end", _ended)


def _committed(session: Session) -> None:
    follower = session.info.get(KEY)
    if follower is not None:
        follower.committed = _innermost(session)


def _ended(session: Session, transaction: Any) -> None:
    # A savepoint that is rolled back, or a session that is closed, tells of nothing else.
    follower = session.info.get(KEY)
    if follower is not None:
        follower.ended(transaction)
