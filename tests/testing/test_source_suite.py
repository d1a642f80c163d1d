"""The suite of stores of held work is tested itself: for each case there is one that it catches."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dispatchers.forwarding import Source
from dispatchers.sqlite import SQLiteDeadLetters
from dispatchers.sqlite._held import NewRow
from dispatchers.testing import _others
from dispatchers.testing.sources import PutRow, SourceConformance, SourceHarness, _tools

from .broken_sources import BROKEN, OfFile

pytestmark = pytest.mark.usefixtures("importable")
CASES = sorted(name for name in dir(SourceConformance) if name.startswith("test_"))
PAIRS = [(case, kind) for case, kinds in BROKEN.items() for kind in kinds]
DEAR = {"test_killed_at_any_line_it_loses_nothing", "test_of_several_processes_one_leads"}
"""Cases that take seconds."""
WHOLE_WAY = {name for name in CASES if name.endswith("_loses_nothing")} | DEAR
"""Cases that go the whole way of rows, and so find what others find, too."""


class BrokenHarness(SourceHarness):
    def __init__(self, kind: type[OfFile], path: Path) -> None:
        self.kind, self.path, self.own = kind, path, OfFile(path)

    @property
    def opener(self) -> Callable[[], Source]:
        return functools.partial(self.kind, self.path)

    def put(self, rows: Sequence[PutRow]) -> None:
        self.own.put([NewRow(*each) for each in rows], timeout=9)

    def dead(self) -> list[bytes]:
        return [each.body for each in SQLiteDeadLetters(self.own.database).list(limit=10_000)]

    def in_transaction(self, source: Source) -> bool:
        assert isinstance(source, OfFile)
        connection = source.database._slot.connection
        return connection is not None and connection.in_transaction

    def close_source(self, source: Source) -> None:
        assert isinstance(source, OfFile)
        source.database.close(5)

    def close(self) -> None:
        self.own.database.close(5)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what does not happen."""
    monkeypatch.setattr(_tools, "PATIENCE", 2.0)
    monkeypatch.setattr(_others, "PATIENCE", 5.0)


def marked(case: str, *values: Any) -> Any:
    marks = [pytest.mark.slow] if case in DEAR else []
    return pytest.param(
        case, *values, marks=marks, id="-".join([case, *(k.__name__ for k in values)])
    )


@pytest.mark.dispatchers_unchecked
@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(("case", "kind"), [marked(*pair) for pair in PAIRS])
def test_a_broken_store_is_caught(case: str, kind: Any, tmp_path: Path) -> None:
    """Each case fails for the store that breaks its promise."""
    assert verdict(case, kind, tmp_path) == "failed"


@pytest.mark.soak
@pytest.mark.dispatchers_unchecked
@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("case", CASES)
def test_no_other_case_would_catch_it(case: str, tmp_path: Path) -> None:
    """A case whose mistakes are all found by another one is not needed."""
    kind, others = BROKEN[case][-1], [o for o in CASES if o not in {case, *WHOLE_WAY}]

    found = [other for other in others if verdict(other, kind, tmp_path / other) == "failed"]
    assert not found, ", ".join(found)


def test_every_case_has_a_broken_store() -> None:
    """A case that nothing can fail proves nothing."""
    assert sorted(BROKEN) == CASES


def test_every_case_has_its_number() -> None:
    """S1, S2 ... without a gap, each once, then its rules and a sentence."""
    docs = [inspect.getdoc(getattr(SourceConformance, case)) or "" for case in CASES]
    found = [re.match(r"S(\d+)(, [FO]\d+)+: [a-z`0-9].*\.$", doc, re.DOTALL) for doc in docs]

    assert all(found), [doc for doc, match in zip(docs, found, strict=True) if not match]
    numbers = sorted(int(match[1]) for match in found if match)
    assert numbers == list(range(1, len(CASES) + 1))


def test_a_misspelt_ability_is_told() -> None:
    """A case would not be skipped for it, and fail instead."""
    with pytest.raises(TypeError, match="did you mean 'processes'"):
        type("Mine", (BrokenHarness,), {"without": {"proceses": "no"}})


def verdict(case: str, kind: type[OfFile], folder: Path) -> str:
    """Return what a case says of a store."""
    folder.mkdir(exist_ok=True)
    harness = BrokenHarness(kind, folder / "held.db")
    method = getattr(SourceConformance(), case)
    with pytest.MonkeyPatch.context() as patch:
        available = {
            "harness": harness,
            "source": harness.source(),
            "monkeypatch": patch,
            "tmp_path": folder,
        }
        try:
            method(**{name: available[name] for name in inspect.signature(method).parameters})
        except pytest.skip.Exception:
            return "skipped"
        except Exception:  # noqa: BLE001 - an assertion, or what the broken store raises
            return "failed"
        finally:
            harness.end()
    return "passed"
