"""`OutboxRows` passes the suite of stores of held work, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dispatchers.forwarding import Source
from dispatchers.outbox import NewRow, OutboxRows
from dispatchers.outbox._sqlalchemy import SQLAlchemyStore
from dispatchers.testing.sources import PutRow, SourceConformance, SourceHarness

from .conftest import Place

ALIAS = "broker"


def opened(place: Place) -> OutboxRows:
    """Open an outbox as one more process does."""
    return OutboxRows(place.store(), ALIAS, lease=0.5)


class OutboxHarness(SourceHarness):
    def __init__(self, place: Place) -> None:
        self.place = place
        self.rows = opened(place)

    @property
    def opener(self) -> Callable[[], Source]:
        return functools.partial(opened, self.place)

    def put(self, rows: Sequence[PutRow]) -> None:
        new = [NewRow(r.id, ALIAS, r.lane, r.task, r.deduplicate, r.body) for r in rows]
        self.rows.put(new, timeout=9)

    def dead(self) -> list[bytes]:
        sql = "SELECT body FROM dispatchers_outbox WHERE dead = true ORDER BY seq"
        return [bytes(body) for (body,) in self.place.query(sql)]

    def in_transaction(self, source: Source) -> bool:
        assert isinstance(source, OutboxRows)
        store: Any = source.store
        if isinstance(store, SQLAlchemyStore):
            return bool(store._engine.pool.checkedout())
        if store._connection is None:
            return False
        if store.dialect == "sqlite":
            return bool(store._connection.in_transaction)
        return bool(store._connection.info.transaction_status)

    def close_source(self, source: Source) -> None:
        assert isinstance(source, OutboxRows)
        source.store.close()

    def close(self) -> None:
        self.rows.store.close()


@pytest.mark.usefixtures("importable")
class TestOutboxRows(SourceConformance):
    @pytest.fixture
    def harness(self, place: Place) -> SourceHarness:
        return OutboxHarness(place)

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_killed_at_any_line_it_loses_nothing(
        self, harness: SourceHarness, tmp_path: Path
    ) -> None:
        super().test_killed_at_any_line_it_loses_nothing(harness, tmp_path)
