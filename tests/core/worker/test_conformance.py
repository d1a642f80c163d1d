"""The worker of docs/adapters.md passes the suite of workers, and so does its async twin."""

from __future__ import annotations

import pytest

from dispatchers import WorkerOptions
from dispatchers.testing import Harness, WorkerConformance


class TableHarness(Harness):
    """A table of its own."""

    without = {"network": "the queue is a file", "crash": "cases take leases by hand"}

    def __init__(self, acme, file, kind):
        self.acme, self.file, self.kind, self.lease = acme, file, kind, 60.0

    def make_dispatcher(self, **options):
        return self.acme.TableDispatcher(file=self.file, **options)

    def make_worker(self, dispatcher, **options):
        # The length of its lease is an attribute, which a class may change.
        kind = type(self.kind.__name__, (self.kind,), {"lease": self.lease})
        return kind(dispatcher, WorkerOptions(**options))

    def leased(self, seconds):
        self.lease = seconds
        return {}

    def received(self, dispatcher):
        return [body for (body,) in dispatcher.execute("SELECT body FROM work WHERE dead IS NULL")]

    def dead(self, dispatcher):
        return [body for (body,) in dispatcher.execute("SELECT body FROM work WHERE dead NOT NULL")]


class TestTableWorker(WorkerConformance):
    @pytest.fixture
    def harness(self, acme, tmp_path):
        return TableHarness(acme, str(tmp_path / "work.db"), acme.TableWorker)


@pytest.mark.slow  # the same worker on the bridge's loop: what differs has tests of its own
class TestAsyncTableWorker(WorkerConformance):
    @pytest.fixture
    def harness(self, acme, kind, tmp_path):
        return TableHarness(acme, str(tmp_path / "work.db"), kind)
