"""The journal that the setting `workflows` names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatchers import ConfigurationError, configure, override
from dispatchers._config.api import current, problems, reload
from dispatchers._journal import loading
from dispatchers._journal.loading import journal, journal_of
from dispatchers._journal.memory import MemoryJournal
from dispatchers.journals import Journal, Start

OWN = MemoryJournal()


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Read no file but the case's own, and leave no setting behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPATCHERS_WORKFLOWS", raising=False)
    reload()
    yield
    configure()
    monkeypatch.undo()
    reload()


@pytest.fixture
def own_module(monkeypatch: pytest.MonkeyPatch):
    """A module `own_journals` with an instance, a class and something else."""
    module = SimpleNamespace(instance=OWN, Kind=MemoryJournal, other=object())
    monkeypatch.setitem(sys.modules, "own_journals", module)
    loading._opened.cache_clear()
    yield
    loading._opened.cache_clear()


def test_without_a_setting_it_is_the_one_of_the_default_dispatcher() -> None:
    """`auto` of an in-process backend is one journal in memory."""
    assert current().workflows == "auto"
    assert isinstance(journal(), MemoryJournal)
    assert journal() is journal_of("memory")


@pytest.mark.parametrize("backend", ["inline", "thread", "memory", "asyncio", "null"])
def test_backends_of_one_process_have_one_in_memory(backend: str) -> None:
    """Their work does not outlive the process either."""
    with override(default=backend):
        assert journal() is journal_of("memory")


def test_sqlite_has_its_own_file(tmp_path: Path) -> None:
    """`auto` of `sqlite` is its own database, so that one transaction can hold both."""
    from dispatchers.backends.sqlite import SQLiteDispatcher

    dispatcher = SQLiteDispatcher(path=tmp_path / "q.db")

    assert dispatcher.journal == f"sqlite:{tmp_path / 'q.db'}"


def test_a_dispatcher_without_one_names_the_cure(adapter: Any) -> None:
    """A broker keeps no journal: the message says which setting to write."""
    with (
        override(default=adapter()),
        pytest.raises(ConfigurationError, match=r'has no journal .* workflows = "sqlite:/path'),
    ):
        journal()


def test_environment_file_and_code_set_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_module: None
) -> None:
    """The sources rank as for every other setting: the file, then variables, then code."""
    (tmp_path / "dispatchers.toml").write_text('workflows = "own_journals:other"\n')
    reload()
    assert current().workflows == "own_journals:other"

    monkeypatch.setenv("DISPATCHERS_WORKFLOWS", "own_journals:Kind")
    reload()
    assert current().workflows == "own_journals:Kind"

    configure({"workflows": "own_journals:instance"})
    assert journal() is OWN


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    """As with stores: a worker started elsewhere finds the same file."""
    (tmp_path / "dispatchers.toml").write_text('workflows = "sqlite:work.db"\n')
    reload()

    assert current().workflows == f"sqlite:{tmp_path / 'work.db'}"


def test_one_instance_for_each_name(own_module: None) -> None:
    """A class is built once; the same name gives the same journal."""
    assert journal_of("own_journals:Kind") is journal_of("own_journals:Kind")
    assert journal_of("own_journals:Kind") is not journal_of("memory")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("memoy", "did you mean 'memory'"),
        ("nonsense", "write sqlite:PATH, memory or 'package.module:attribute'"),
        ("redis://host/0", "'redis://host/0' names no journal: write sqlite:PATH"),
        ("postgres://u:secret@h/db", "names no journal"),
        ("sqlite:", "names no file: write sqlite:PATH"),
        ("no_such_module:journal", "workflows = 'no_such_module:journal' could not be loaded"),
        ("own_journals:missing", "could not be loaded"),
        ("own_journals:other", "is no journal: object lacks begin, take"),
    ],
)
def test_a_wrong_name_says_the_cure(spec: str, words: str, own_module: None) -> None:
    """Each says the setting, the name and the forms there are; no password is shown."""
    with pytest.raises(ConfigurationError) as caught:
        journal_of(spec)

    assert words in str(caught.value)
    assert "workflows = " in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_empty_name_is_refused() -> None:
    """It is not taken for `auto`."""
    with pytest.raises(ConfigurationError, match="workflows"):
        configure({"workflows": ""})


def test_check_sees_a_wrong_name() -> None:
    """C12: `check()` and `doctor` report it with the place it stands in."""
    configure({"workflows": "nonsense"})

    found = [each for each in problems() if "workflows" in each.message]

    assert [each.severity for each in found] == ["error"]
    assert "nonsense" in found[0].message


def test_check_with_contact_asks_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be reached is a problem of the check with contact only."""

    class Down(MemoryJournal):
        def look(self, execution: str, *, timeout: float) -> Any:
            raise OSError("nothing is there")

    monkeypatch.setitem(sys.modules, "down_journals", SimpleNamespace(Down=Down))
    configure({"workflows": "down_journals:Down"})

    assert [each for each in problems() if "down_journals" in each.message] == []
    [found] = [each for each in problems(contact=True) if "down_journals" in each.message]
    assert "nothing is there" in found.message
    loading._opened.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_it_too() -> None:
    """A lock that another thread of the parent held does not stop the child."""
    kept = journal_of("memory")
    assert isinstance(kept, MemoryJournal)
    with kept._lock:
        pid = os.fork()
        if not pid:
            start = Start("fork/1", "fork", 1, "default", None, b"{}", b"x", 1.0)
            os._exit(0 if kept.begin(start, timeout=1).first else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    assert kept.look("fork/1", timeout=1) is None


def test_loading_a_journal_loads_no_other() -> None:
    """The module of SQLite is imported only for a journal in a file."""
    code = (
        "import sys; from dispatchers._journal.loading import journal; journal(); "
        "sys.exit('sqlite3' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_protocol_is_what_is_checked() -> None:
    """Every method of the protocol is asked for, and nothing else."""
    methods = {name for name in dir(Journal) if not name.startswith("_")}

    assert set(loading.METHODS) == methods - {"claims"}
