"""What the tests of the SQLite store share."""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers.sqlite import NewJob, SQLiteStore


class Desk:
    """A file, the stores on it, and jobs to put into them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stores: list[SQLiteStore] = []
        self._count = itertools.count(1)

    def open(self, **options: Any) -> SQLiteStore:
        store = SQLiteStore(self.path, **options)
        self._stores.append(store)
        return store

    def job(self, job_id: str | None = None, **values: Any) -> NewJob:
        values = {"task": "shop.mail", "queue": "default", "body": b"{}"} | values
        return NewJob(job_id or f"job-{next(self._count)}", **values)

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "queue.db")
    yield desk
    desk.close()


@pytest.fixture
def store(desk: Desk) -> SQLiteStore:
    return desk.open()


@pytest.fixture
def owner(store: SQLiteStore) -> str:
    return store.owners.register(timeout=5)


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], int]:
    """Runs a function in a forked child; the result is its exit code, 0 if all was well."""

    def run(work: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work()
            except BaseException:  # noqa: BLE001 - the child has to end here
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run
