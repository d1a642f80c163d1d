"""The suite of workers is tested itself: for each case there is a worker that it catches."""

from __future__ import annotations

import inspect
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from dispatchers.testing import Harness, Journal, WorkerConformance
from dispatchers.testing.conformance import _tools, _worker_leases

from .broken_workers import BROKEN, DEFECTS, HANGS, Defect, WorkerHarness, in_turn, planted

pytestmark = pytest.mark.dispatchers_unchecked

CASES = sorted(name for name in dir(WorkerConformance) if name.startswith("test_"))


class TestShelfWorker(WorkerConformance):
    """A sound worker passes."""

    @pytest.fixture
    def harness(self) -> WorkerHarness:
        return WorkerHarness()


@pytest.fixture(autouse=True)
def _impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what a broken worker does not do."""
    if request.cls is not TestShelfWorker:
        monkeypatch.setattr(_tools, "PATIENCE", 1.0)
        monkeypatch.setattr(_worker_leases, "RENEWED", 0.6)


def _is_caught(case: str, harness: Harness, folder: Path) -> None:
    name, _, way = case.rstrip("]").partition("[")
    journal = Journal(folder / "journal")
    more = {"way": way} if way else {}
    try:
        with pytest.raises(AssertionError):
            getattr(WorkerConformance(), name)(harness=harness, journal=journal, **more)
    finally:
        journal.release()
        harness.end()
        for thread in threading.enumerate():
            if thread.name.startswith("dispatchers-worker-"):
                thread.join(1)


@pytest.mark.parametrize(("case", "worker"), BROKEN, ids=[each.__name__ for _, each in BROKEN])
def test_a_broken_worker_is_caught(case: str, worker: Any, tmp_path: Path) -> None:
    """A case fails for the worker that breaks its rule."""
    _is_caught(case, WorkerHarness(worker), tmp_path)


def test_leases_renewed_in_turn_are_caught(tmp_path: Path) -> None:
    """A renewal that hangs holds up the others."""
    _is_caught(HANGS, in_turn(tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "defect", DEFECTS, ids=[f"{each.source.strip('_')}-{each.what}" for each in DEFECTS]
)
def test_a_slip_of_an_author_is_caught(defect: Defect, tmp_path: Path) -> None:
    """The case that the table names fails for the backend with this slip."""
    _is_caught(defect.case, planted(defect, tmp_path), tmp_path)


def test_every_case_has_a_broken_worker() -> None:
    """A case that nothing can fail proves nothing."""
    caught = [case for case, _ in BROKEN] + [HANGS] + [each.case for each in DEFECTS]

    assert sorted({case.partition("[")[0] for case in caught}) == CASES


@pytest.mark.parametrize("case", CASES)
def test_every_case_says_its_rule(case: str) -> None:
    """A case's docstring begins with the number of the rule that it judges."""
    doc = inspect.getdoc(getattr(WorkerConformance, case)) or ""

    assert re.match(r"C\d+: [a-zA-Z`].*\.$", doc, re.DOTALL), doc
