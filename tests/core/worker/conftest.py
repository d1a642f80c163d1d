"""The worker of docs/adapters.md, on a real table, and what its tests wait for."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dispatchers import WorkerOptions
from dispatchers.worker import BaseAsyncWorker

from ..backends.conftest import (  # noqa: TID252 - the folders of tests are no packages
    GENEROUS,
    Gate,
    Seen,
    gate,
    seen,
    until,
)

__all__ = ["GENEROUS", "Gate", "Seen", "gate", "seen", "until"]

PAGE = Path(__file__).parents[3] / "docs" / "adapters.md"


@pytest.fixture(scope="session")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module that the page shows: what authors copy is what is tested."""
    [source] = re.findall(r"```python\n(# acme_table\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path_factory.mktemp("acme") / "acme_table.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("acme_table", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["acme_table"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["acme_table"]


@pytest.fixture
def table(acme, tmp_path):
    """A queue in a file of its own."""
    return acme.TableDispatcher(file=str(tmp_path / "work.db"))


@pytest.fixture
def rows(table):
    """What is in the table, without bodies."""

    def read(columns: str = "id") -> list[Any]:
        return table.execute(f"SELECT {columns} FROM work ORDER BY due")

    return read


@pytest.fixture
def working(table, acme, gate):
    """Runs a worker on a thread, and stops it at the end of the test."""
    running = []

    def start(kind: Any = None, **options: Any):
        worker = (kind or acme.TableWorker)(table, WorkerOptions(**options))
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(worker.run()))
        thread.start()
        running.append((worker, thread))

        def stopped() -> int:
            worker.stop()
            thread.join(GENEROUS)
            return codes[0]

        return stopped

    yield start

    gate.open()
    for worker, thread in running:
        worker.stop()
        thread.join(GENEROUS)


@pytest.fixture
def kind(acme):
    """A worker of the same table, whose every call is a coroutine."""

    class AsyncTableWorker(BaseAsyncWorker[str]):
        lease = 60.0

        def __init__(self, dispatcher, options):
            super().__init__(dispatcher, options)
            self.table = acme.TableWorker(dispatcher, options)
            self.table.lease = self.lease
            self.loops = set()

        async def called(self, name, *values):
            self.loops.add(asyncio.get_running_loop())
            return await asyncio.to_thread(getattr(self.table, name), *values)

        async def _atake(self, wait):
            return await self.called("_take", wait)

        async def _arenew(self, work):
            return await self.called("_renew", work)

        async def _acomplete(self, work):
            await self.called("_complete", work)

        async def _aretry(self, work, after, attempt):
            await self.called("_retry", work, after, attempt)

        async def _agive_back(self, work, after, deliveries):
            await self.called("_give_back", work, after, deliveries)

        async def _adead_letter(self, work, letter):
            await self.called("_dead_letter", work, letter)

    return AsyncTableWorker
