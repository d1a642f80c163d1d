"""`sqlite` keeps the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatchers import Worker, WorkerOptions, run_envelope
from dispatchers._worker.settings import run_settings
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.sqlite import Finish, Job
from dispatchers.sqlite._worker.settlement import settlement
from dispatchers.testing import DispatcherConformance, Harness, WorkerConformance


class SQLiteHarness(Harness):
    """A file in a folder of its own; its worker is the exchange with the store, one at a time."""

    without = {"network": "the queue is a file"}
    drains_delayed = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "queue.db"

    def make_dispatcher(self, **options: Any) -> SQLiteDispatcher:
        return SQLiteDispatcher(path=self.path, **options)

    def received(self, dispatcher: Any) -> list[bytes]:
        return self._bodies(dispatcher, "state IN (0, 1)")

    def dead(self, dispatcher: Any) -> list[bytes]:
        return self._bodies(dispatcher, "state = 4")

    def _bodies(self, dispatcher: Any, where: str) -> list[bytes]:
        sql = f"SELECT body FROM jobs WHERE {where} ORDER BY seq"
        with dispatcher._store.database.transaction(timeout=5) as connection:
            return [body for (body,) in connection.execute(sql)]

    def run_next(self, dispatcher: Any) -> object:
        with self._claimed(dispatcher) as (job, owner):
            if job is None:
                return None
            outcome = run_envelope(
                job.body,
                attempt=job.attempt,
                deliveries=job.deliveries,
                settings=run_settings(dispatcher.options),
            )
            self._settle(dispatcher, owner, settlement(job, outcome, None))
            return outcome

    def make_worker(self, dispatcher: Any, **options: Any) -> Worker:
        # Its children are new processes, which know no task yet.
        modules = ("dispatchers.testing.tasks", *options.pop("modules", ()))
        return dispatcher._worker(WorkerOptions(modules=modules, **options))

    def leased(self, seconds: float) -> dict[str, object]:
        return {"lease": max(1.0, seconds)}

    def crash(self, dispatcher: Any) -> None:
        with self._claimed(dispatcher) as (job, owner):
            self._settle(dispatcher, owner, Finish.give_back(job))

    @contextmanager
    def _claimed(self, dispatcher: Any) -> Generator[tuple[Any, str]]:
        store = dispatcher._store
        owner = store.owners.register(timeout=5)
        jobs: list[Job] = store.exchange([], owner=owner, queues=None, limit=1, timeout=5).jobs
        yield (jobs[0] if jobs else None), owner
        store.owners.leave(owner, timeout=5)

    def _settle(self, dispatcher: Any, owner: str, finish: Finish) -> None:
        dispatcher._store.exchange([finish], owner=owner, queues=None, limit=0, timeout=5)

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        dispatcher._store.open(timeout=5)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    @contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Generator[None]:
        def fail(*args: object, **options: object) -> Any:
            raise exc

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatcher._store, "put", fail)
            patch.setattr(dispatcher._store, "put_many", fail)
            yield


class TestSQLite(DispatcherConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SQLiteHarness(tmp_path)


@pytest.mark.slow
class TestSQLiteWorker(WorkerConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SQLiteHarness(tmp_path)
