"""The statement that adds rows to an outbox, alike in every transaction."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from dispatchers._models.request import DispatchRequest
from dispatchers.backends._held_work import lane_of

from ._store import CHANNEL

__all__ = ["NewRow", "insertion", "row_lane"]

AT_ONCE = 1000
"""Rows of one statement: with nine values each, below what SQLite takes."""
BYTES = 4 * 1024 * 1024
"""Bytes of envelopes of one statement, but of one row whatever its size: MariaDB takes 16 MiB, in
which each byte may need two."""
COLUMNS = (
    "id", "alias", "lane", "task", "deduplicate", "body", "tries", "created_at", "dead",
)  # fmt: skip
SET_ANEW = ("alias", "lane", "task", "deduplicate", "body", "tries", "created_at")
"""What becomes of a dead letter that is dispatched again, as `dead replay` does."""
_ADD = "INSERT INTO dispatchers_outbox"
LONGEST = 255
"""Characters of a lane."""


class NewRow(NamedTuple):
    """An envelope for the outbox."""

    id: str
    alias: str
    lane: str
    task: str
    deduplicate: bool
    body: bytes

    @classmethod
    def of(cls, request: DispatchRequest, body: bytes, alias: str, lane: str) -> NewRow:
        """Return the row of a request, for the dispatcher of an alias."""
        return cls(request.id, alias, lane, request.task, request.deduplicate, body)


def row_lane(request: DispatchRequest, queue: str | None) -> str:
    """Return the lane of a request as a column takes it."""
    lane = lane_of(request, queue)
    if len(lane) <= LONGEST and "\0" not in lane and lane.isprintable():
        return lane
    # No column takes it: the same lane under another name.
    return hashlib.sha256(lane.encode(errors="surrogatepass")).hexdigest()


def insertion(
    dialect: str, rows: Sequence[NewRow], *, notify: bool = True
) -> Iterator[tuple[str, list[object]]]:
    """Return the statements that add rows, each with its values.

    An id that waits is left as it is; one that is a dead letter waits again.

    Args:
        dialect: `sqlite`, `postgresql` or `mysql`.

        rows: What is added; of two under one id the first.

        notify: PostgreSQL: tell those who listen once it is committed.
    """
    now = time.time()
    listed = rows if len(rows) == 1 else _each_id_once(rows)
    for part in [listed] if len(listed) == 1 else _parts(listed):
        values: list[object] = []
        for row in part:
            values += (*row, 0, now, False)
        notified = notify and dialect == "postgresql"
        yield _sql(dialect, len(part), notified), [*values, part[0].alias] if notified else values


def _parts(rows: Sequence[NewRow]) -> Iterator[Sequence[NewRow]]:
    start = size = 0
    for place, row in enumerate(rows):
        size += len(row.body)
        if place > start and (size > BYTES or place - start == AT_ONCE):
            yield rows[start:place]
            start, size = place, len(row.body)
    yield rows[start:]


def _each_id_once(rows: Sequence[NewRow]) -> Sequence[NewRow]:
    # PostgreSQL refuses a statement that names an id twice.
    return list({row.id: row for row in reversed(rows)}.values())[::-1]


@lru_cache(maxsize=256)
def _sql(dialect: str, count: int, notified: bool) -> str:
    row = f"({', '.join('?' * len(COLUMNS))})"
    rows = ", ".join([row] * count)
    columns = ", ".join(COLUMNS)
    insert = f"{_ADD} ({columns}) VALUES {rows} {_again(dialect)}"
    if not notified:
        return insert
    # One round trip. The notification is delivered at the commit, and with it only.
    if count == 1:
        return f"{insert} RETURNING pg_notify('{CHANNEL}', ?)"
    return f"WITH added AS ({insert}) SELECT pg_notify('{CHANNEL}', ?)"


def _again(dialect: str) -> str:
    if dialect == "mysql":
        # From left to right: `dead` is asked until it is changed.
        changed = [f"{name} = IF(dead, VALUES({name}), {name})" for name in SET_ANEW]
        changed += ["why = IF(dead, NULL, why)", "dead = FALSE"]
        return f"ON DUPLICATE KEY UPDATE {', '.join(changed)}"
    changed = [f"{name} = excluded.{name}" for name in (*SET_ANEW, "dead")]
    sets = ", ".join([*changed, "why = NULL"])
    return f"ON CONFLICT (id) DO UPDATE SET {sets} WHERE dispatchers_outbox.dead"
