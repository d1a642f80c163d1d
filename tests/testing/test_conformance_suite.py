"""The suite is tested itself: for each case there is an adapter that it catches."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers.testing import DispatcherConformance, Harness, Journal, tasks
from dispatchers.testing.conformance import _tools

from .broken_adapters import BROKEN
from .reference import InlineHarness, ShelfHarness, SocketHarness

pytestmark = pytest.mark.dispatchers_unchecked

CASES = sorted(name for name in dir(DispatcherConformance) if name.startswith("test_"))
PAIRS = [(case, make) for case in CASES for make in BROKEN.get(case, ())]
SOUND = (ShelfHarness, SocketHarness, InlineHarness)


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
    """Each case is passed by a sound adapter, not only skipped: one of three at least."""
    verdicts = {v for sound in SOUND for v in _verdicts(case, sound, tmp_path, first_only=True)}

    limited = {"test_too_large_an_envelope_is_refused", "test_too_long_a_delay_is_refused"}
    assert "passed" in verdicts or case in limited
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
    method = getattr(DispatcherConformance(), case)
    try:
        method(**{name: available[name] for name in inspect.signature(method).parameters})
    except pytest.skip.Exception:
        return "skipped"
    except (Exception, pytest.fail.Exception):  # noqa: BLE001
        return "failed"
    return "passed"


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
