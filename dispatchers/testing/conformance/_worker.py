"""`WorkerConformance`: the suite for a backend that brings a worker of its own."""

from __future__ import annotations

import pytest

from ._suite import Suite
from ._worker_breaks import BreaksOff
from ._worker_leases import HoldsLeases
from ._worker_life import Lives
from ._worker_settles import Settles

__all__ = ["WorkerConformance"]


@pytest.mark.dispatchers_unchecked
class WorkerConformance(Lives, Settles, HoldsLeases, BreaksOff, Suite):
    """Rules of a worker, beside those of its dispatcher; `Harness.make_worker` makes it.

    Cases that call the methods of `dispatchers.worker` by hand are skipped for other workers, those
    about leases where `Harness.leased` gives none.

    ::

        class TestAcmeWorker(WorkerConformance):
            @pytest.fixture
            def harness(self, tmp_path: Path) -> AcmeHarness:
                return AcmeHarness(tmp_path)
    """
