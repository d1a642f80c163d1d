"""The suite is tested itself: for each case there is an adapter that it catches."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DispatchRequest, ErrorCategory, RejectedError, Sent
from dispatchers.testing import DispatcherConformance, Harness, Journal, tasks
from dispatchers.testing.conformance import _tools

from .broken_adapters import BROKEN
from .reference import (
    InlineHarness,
    SharingHarness,
    ShelfDispatcher,
    ShelfHarness,
    SocketHarness,
)

pytestmark = pytest.mark.dispatchers_unchecked

CASES = sorted(name for name in dir(DispatcherConformance) if name.startswith("test_"))
PAIRS = [(case, make) for case in CASES for make in BROKEN.get(case, ())]
SOUND = (ShelfHarness, SocketHarness, SharingHarness, InlineHarness)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait less for what does not happen; what a broken worker leaves in the context goes."""
    monkeypatch.setattr(_tools, "PATIENCE", 1.0)
    before = tasks.COLOR.get()
    yield
    tasks.COLOR.set(before)


@pytest.mark.parametrize(
    ("case", "make"), PAIRS, ids=[f"{c}-{i}" for i, (c, _) in enumerate(PAIRS)]
)
def test_a_broken_adapter_is_caught(case: str, make: Callable[[], Harness], tmp_path: Path) -> None:
    """Each case fails for the adapter that breaks its rule."""
    verdicts = _verdicts(case, make, tmp_path)

    assert any(verdict == "failed" for verdict in verdicts), f"{case} lets it pass"


def test_every_case_has_a_broken_adapter() -> None:
    """A case that nothing can fail proves nothing."""
    assert sorted(BROKEN) == CASES


@pytest.mark.parametrize("case", CASES)
def test_every_case_can_be_passed(case: str, tmp_path: Path) -> None:
    """Each case is passed by a sound adapter, not only skipped: one of four at least."""
    verdicts = {v for sound in SOUND for v in _verdicts(case, sound, tmp_path, first_only=True)}

    assert "passed" in verdicts
    assert "failed" not in verdicts


@pytest.mark.parametrize("case", CASES)
def test_every_case_says_its_rule(case: str) -> None:
    """A case's docstring begins with the number of the rule that it judges."""
    doc = inspect.getdoc(getattr(DispatcherConformance, case)) or ""

    assert re.match(r"C\d+(, C\d+)*: [a-zA-Z`].*\.$", doc, re.DOTALL), doc


def test_every_rule_has_cases() -> None:
    """No rule of the contract is left out."""
    docs = [inspect.getdoc(getattr(DispatcherConformance, case)) or "" for case in CASES]

    judged = {number for doc in docs for number in re.findall(r"C\d+", doc.split(":")[0])}

    assert judged == {f"C{number}" for number in range(1, 13)}


def with_text(text: str) -> list[str]:
    """The cases whose code has this text."""
    return [c for c in CASES if text in inspect.getsource(getattr(DispatcherConformance, c))]


class Refusing(ShelfDispatcher):
    """Takes nothing: its server is full."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        raise RejectedError(ErrorCategory.CAPACITY, "no room")


@pytest.mark.parametrize("case", with_text("run_until("))
def test_work_that_was_not_taken_is_not_waited_for(case: str, tmp_path: Path) -> None:
    """A case says at once why it fails: the answer, and not that nothing has run."""
    harness = ShelfHarness(Refusing)
    available = {"harness": harness, "journal": Journal(tmp_path / "journal")}

    error = _error(case, {**available, **_parameters(case)[0]})

    harness.end()
    assert not isinstance(error, _tools.NeverHappenedError)


class Unhurried(ShelfHarness):
    """Says that its dispatches take long, and notes what they get."""

    deadline = 9.0

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[float] = []

    def make_dispatcher(self, **options: Any) -> ShelfDispatcher:
        self.deadlines.append(options["deadline"])
        return super().make_dispatcher(**options)


ABOUT_DEADLINES = {
    "test_many_that_fail_together_count_once",
    "test_a_backend_that_stalls_costs_the_deadline",
    "test_an_awaited_dispatch_does_not_block_the_loop",
    "test_the_deadline_never_cuts_a_run",
}


@pytest.mark.parametrize("case", sorted({*with_text("deadline=")} - ABOUT_DEADLINES))
def test_a_case_gives_the_deadline_of_the_harness(case: str, tmp_path: Path) -> None:
    """A harness says what its dispatches need; only cases about deadlines give them less."""
    harness = Unhurried()
    available = {"harness": harness, "journal": Journal(tmp_path / "journal")}

    _error(case, {**available, **_parameters(case)[0]})

    harness.end()
    assert all(deadline >= Unhurried.deadline for deadline in harness.deadlines)


# Running a case.


def _verdicts(
    case: str, make: Callable[[], Harness], folder: Path, *, first_only: bool = False
) -> Iterator[str]:
    """`passed`, `failed` or `skipped` for each set of the case's parameters."""
    for number, values in enumerate(_parameters(case)):
        harness = make()
        journal = Journal(folder / f"{harness.__class__.__name__}-{number}")
        try:
            yield _verdict(case, {"harness": harness, "journal": journal, **values})
        finally:
            harness.end()
        if first_only:
            return


def _verdict(case: str, available: dict[str, Any]) -> str:
    error = _error(case, available)
    if isinstance(error, pytest.skip.Exception):
        return "skipped"
    return "passed" if error is None else "failed"


def _error(case: str, available: dict[str, Any]) -> BaseException | None:
    """What a case raises, if anything."""
    method = getattr(DispatcherConformance(), case)
    try:
        method(**{name: available[name] for name in inspect.signature(method).parameters})
    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as exc:  # noqa: BLE001
        return exc
    return None


def _parameters(case: str) -> list[dict[str, Any]]:
    """Every combination that `parametrize` gives the case."""
    marks = getattr(getattr(DispatcherConformance, case), "pytestmark", [])
    axes = [
        [{mark.args[0]: value} for value in mark.args[1]]
        for mark in marks
        if mark.name == "parametrize"
    ]
    return [
        {name: value for part in parts for name, value in part.items()}
        for parts in itertools.product(*axes)
    ]
