"""The journals' suite is tested itself: for each case there is a journal that it catches."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatchers.journals import Journal
from dispatchers.testing import _others
from dispatchers.testing.journals import (
    JournalConformance,
    JournalHarness,
    _calls,
    _workers,
)

from .broken_journals import BROKEN, SHARED
from .shared_journal import SharedJournal

CASES = sorted(name for name in dir(JournalConformance) if name.startswith("test_"))
PAIRS = [(case, kind) for case, kinds in BROKEN.items() for kind in kinds]
ROOT = str(Path(__file__).parents[2])
CALL = "commit"
"""The call in which processes are killed here."""


class BrokenHarness(JournalHarness):
    # So long that a slow machine is no reason for a case to look away.
    lease = 2.0
    unread_after = 1.0

    def __init__(self, kind: Any) -> None:
        self.made = kind(lease=self.lease, unread_after=self.unread_after)

    @property
    def opener(self) -> Callable[[], Journal]:
        return lambda: self.made


class SharedHarness(JournalHarness):
    lease = 2.0

    def __init__(self, kind: type[SharedJournal], folder: Path) -> None:
        self.kind, self.folder = kind, folder

    @property
    def opener(self) -> Callable[[], Journal]:
        return functools.partial(self.kind, self.folder, lease=self.lease)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what does not happen."""
    monkeypatch.setattr(_calls, "PATIENCE", 3.0)
    monkeypatch.setattr(_others, "PATIENCE", 1.5)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("case", "kind"), PAIRS, ids=[f"{case}-{kind.__name__}" for case, kind in PAIRS]
)
def test_a_broken_journal_is_caught(case: str, kind: Any, caplog: Any, tmp_path: Path) -> None:
    """Each case fails for the journal that breaks its promise."""
    assert _verdict(case, BrokenHarness(kind), caplog, tmp_path) == "failed"


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(("case", "kind"), SHARED.items())
def test_a_journal_that_processes_tear_is_caught(
    case: str, kind: Any, caplog: Any, tmp_path: Path
) -> None:
    """As above, where several processes are needed."""
    # A kill may come too early to be in the call: then the case is tried again.
    folders = [tmp_path / str(number) for number in range(10)]
    assert any(_of_shared(case, kind, each, caplog) == "failed" for each in folders)


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("case", sorted(SHARED))
def test_cases_of_processes_can_be_passed(case: str, caplog: Any, tmp_path: Path) -> None:
    """The others are passed by `MemoryJournal`, in `tests/core/journal`."""
    assert _of_shared(case, SharedJournal, tmp_path / "1", caplog) == "passed"


def test_a_process_that_cannot_import_its_journal_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where pytest imports tests from no folder of the path: not the end of a file, a cure."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != ROOT])
    opener = functools.partial(SharedJournal, tmp_path)
    with (
        _workers.others(opener, _workers.begin_many, 1) as started,
        pytest.raises(AssertionError, match="pytest's `pythonpath`"),
    ):
        _others.results(started)


def test_every_case_has_a_broken_journal() -> None:
    """A case that nothing can fail proves nothing."""
    assert sorted([*BROKEN, *SHARED]) == CASES


def test_every_case_has_its_number() -> None:
    """J1, J2 ... without a gap, each once, then a sentence."""
    docs = [inspect.getdoc(getattr(JournalConformance, case)) or "" for case in CASES]
    found = [re.match(r"J(\d+): [a-z`0-9].*\.$", doc, re.DOTALL) for doc in docs]

    assert all(found), [doc for doc, match in zip(docs, found, strict=True) if not match]
    numbers = sorted(int(match[1]) for match in found if match)
    assert numbers == list(range(1, len(CASES) + 1))


def test_a_misspelt_ability_is_told() -> None:
    """A case would not be skipped for it, and fail instead."""
    with pytest.raises(TypeError, match="did you mean 'processes'"):
        type("Mine", (BrokenHarness,), {"without": {"proceses": "no"}})


def _of_shared(case: str, kind: type[SharedJournal], folder: Path, caplog: Any) -> str:
    folder.mkdir()
    return _verdict(case, SharedHarness(kind, folder), caplog, folder)


def _verdict(case: str, harness: JournalHarness, caplog: Any, folder: Path) -> str:
    method = getattr(JournalConformance(), case)
    available = {
        "harness": harness,
        "calls": _calls.Calls(harness.journal(), harness.lease),
        "caplog": caplog,
        "tmp_path": folder,
        "call": CALL,
    }
    try:
        method(**{name: available[name] for name in inspect.signature(method).parameters})
    except pytest.skip.Exception:
        return "skipped"
    except (AssertionError, pytest.fail.Exception):
        return "failed"
    return "passed"
