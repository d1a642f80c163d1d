"""The dead rows of an outbox as the core knows dead letters."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Sequence
from typing import Any

from dispatchers._models.dead_letter import DeadLetter

from ._insert import NewRow, insertion
from ._store import Store

__all__ = ["OutboxLetters"]

TIMEOUT = 5.0
"""Seconds that each call waits for others."""
_SELECT = "SELECT body, why, id, task, lane FROM dispatchers_outbox WHERE dead = ?"
_COUNT = "SELECT lane, count(*) FROM dispatchers_outbox WHERE dead = ?"
_DIES = "UPDATE dispatchers_outbox SET dead = ?, why = ? WHERE id = ?"
_EDIT = "UPDATE dispatchers_outbox SET body = ? WHERE dead = ? AND id = ?"
_GOES = "DELETE FROM dispatchers_outbox WHERE dead = ? AND id = ?"


class OutboxLetters:
    """A dead-letter store: the rows of one alias that can never be taken.

    Those that are for no dispatcher at all are shown, too.

    Args:
        store: The database.

        alias: The dispatcher that the rows are for.

        known: The aliases whose rows are listed elsewhere.
    """

    def __init__(
        self, store: Store, alias: str, known: Callable[[], Collection[str]] = tuple
    ) -> None:
        self._store, self._alias, self._known = store, alias, known

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter; it is committed when this returns."""
        row = NewRow(letter.id, self._alias, letter.queue, letter.task, False, letter.body)
        with self._store.transaction(timeout=TIMEOUT) as executor:
            executor.execute(_GOES, [True, letter.id])
            for sql, values in insertion(self._store.dialect, [row], notify=False):
                executor.execute(sql, values)
            executor.execute(_DIES, [True, letter.to_json(body=False), letter.id])

    def list(
        self, *, limit: int = 100, task: str | None = None, queue: str | None = None
    ) -> builtins.list[DeadLetter]:
        """The newest letters first."""
        sql, values = self._mine(_SELECT)
        for column, wanted in (("task", task), ("lane", queue)):
            if wanted is not None:
                sql, values = f"{sql} AND {column} = ?", [*values, wanted]
        found = self._read(f"{sql} ORDER BY seq DESC LIMIT ?", [*values, limit])
        return [_letter(each) for each in found]

    def get(self, id: str) -> DeadLetter | None:  # noqa: A002 - the protocol's word
        """One letter."""
        sql, values = self._mine(_SELECT)
        found = self._read(f"{sql} AND id = ?", [*values, id])
        return _letter(found[0]) if found else None

    def edit(self, id: str, body: bytes) -> bool:  # noqa: A002
        """Replace the envelope of a letter; false if there is none."""
        return self._change(_EDIT, [body, True, id])

    def delete(self, id: str) -> bool:  # noqa: A002
        """Forget a letter; false if there is none."""
        return self._change(_GOES, [True, id])

    def counts(self) -> dict[str, int]:
        """Count the letters by lane."""
        sql, values = self._mine(_COUNT)
        return dict(self._read(f"{sql} GROUP BY lane", values))

    def _mine(self, sql: str) -> tuple[str, builtins.list[object]]:
        others = builtins.list(self._known())
        if others:
            sql = f"{sql} AND alias NOT IN ({', '.join('?' * len(others))})"
        return sql, [True, *others]

    def _read(self, sql: str, values: Sequence[object]) -> builtins.list[Any]:
        with self._store.transaction(timeout=TIMEOUT, write=False) as executor:
            return builtins.list(executor.execute(sql, values).rows)

    def _change(self, sql: str, values: Sequence[object]) -> bool:
        with self._store.transaction(timeout=TIMEOUT) as executor:
            return executor.execute(sql, values).changed == 1


def _letter(row: Sequence[Any]) -> DeadLetter:
    body, why, own_id, task, lane = bytes(row[0]), row[1], row[2], row[3], row[4]
    try:
        letter = DeadLetter.from_json(why or "", body=body)
    except ValueError:  # written by hand, say
        return DeadLetter(id=own_id, task=task, queue=lane, reason="permanent", body=body)
    return letter.model_copy(update={"id": own_id})
