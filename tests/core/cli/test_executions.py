"""`executions`: what workflows did is seen, ended, resumed, exported and forgotten."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatchers import DispatchRequest
from dispatchers._journal import loading
from dispatchers._journal.errors import JournalError
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.values import Answer, Command, Commit, EntryKind, Start, Status, Turn
from dispatchers._models.envelope import encode
from dispatchers.cli import _executions_found
from dispatchers.sqlite import SQLiteJournal
from dispatchers.workflows._export import read_export

from .conftest import SHOP, Shop

Lines = Callable[[str], list[str]]

AT = time.time() - 3600
TIMEOUT = 5.0


class Journal:
    """A journal with executions as the tests want them."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def started(self, key: str = "order-7", workflow: str = "shop.checkout", **fields: Any) -> str:
        body = encode(DispatchRequest(task=workflow, payload={"order": 7, "note": "n" * 200}))
        name = f"{workflow}/{key}"
        at = fields.pop("at", AT)
        start = Start(name, workflow, 1, "default", None, b"{}", body, at)
        self.begin(start._replace(**fields), timeout=TIMEOUT)
        return name

    def turned(self, name: str, **fields: Any) -> None:
        turn = self.take(name, "worker", wakeup="w", after=0, timeout=TIMEOUT)
        assert isinstance(turn, Turn)
        commit = Commit(fields.pop("at", AT), turn.record.head, **fields)
        self.commit(turn, commit, timeout=TIMEOUT)

    def charged(self, name: str) -> None:
        body = encode(DispatchRequest(task="shop.charge", payload={"order": 7}))
        self.turned(
            name, commands=[Command(1, EntryKind.STEP, "shop.charge", b"", body, "default")]
        )
        self.sent(name, [1], timeout=TIMEOUT)

    def failed(self, name: str) -> None:
        self.charged(name)
        fields = {"exception_type": "shop.Declined", "message": "no money", "attempts": 3}
        body = json.dumps(fields).encode()
        self.answer(name, 1, Answer(EntryKind.FAILED, body, AT + 1), timeout=TIMEOUT)
        self.turned(name, status=Status.FAILED, output=body, why="shop.Declined: no money")

    def completed(self, name: str, at: float = AT) -> None:
        self.turned(name, status=Status.COMPLETED, output=b'{"paid":true}', at=at)

    def status(self, name: str) -> Status | None:
        record = self.look(name, timeout=TIMEOUT)
        return record and record.status


@pytest.fixture(params=["memory", "sqlite"])
def journal(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Journal]:
    """The journal that the shop's configuration names."""
    is_memory = request.param == "memory"
    found = Journal(MemoryJournal() if is_memory else SQLiteJournal(shop.folder / "j.sqlite3"))
    monkeypatch.setitem(sys.modules, "cli_journals", SimpleNamespace(found=found))
    shop.configure(f'workflows = "cli_journals:found"\n{SHOP}default = "memory"\n')
    loading._opened.cache_clear()
    yield found
    found.close()
    loading._opened.cache_clear()


# List.


def test_an_empty_journal(shop: Shop, journal: Journal) -> None:
    """Without executions there is a note, and an empty list for programs."""
    assert shop("executions", "list").err == "no executions\n"
    assert shop("executions", "list", "--json").out == "[]\n"


def test_the_youngest_come_first(shop: Shop, journal: Journal, lines: Lines) -> None:
    """Executions are listed youngest first, with their status and reason."""
    journal.started("order-1", at=AT - 60)
    journal.failed(journal.started("order-2"))

    head, *rows = lines(shop("executions", "list").out)

    assert head.split() == ["EXECUTION", "STATUS", "BEGAN", "WHAT", "OF", "IT"]
    assert [row.split()[:2] for row in rows] == [
        ["shop.checkout/order-2", "failed"],
        ["shop.checkout/order-1", "running"],
    ]
    assert "shop.Declined: no money" in rows[0]


def test_signals_that_came_first_are_listed_as_such(shop: Shop, journal: Journal) -> None:
    """D15: an execution that has not begun has no reason to give."""
    name = "shop.checkout/order-7"
    sent = {"source": "request", "at": AT, "timeout": TIMEOUT}
    journal.deliver(name, "shop.checkout", EntryKind.SIGNAL, "approval", b"true", **sent)

    assert "signals came before its start" in shop("executions", "list").out


def test_a_list_is_narrowed(shop: Shop, journal: Journal) -> None:
    """By status, workflow, text in the id, parent and age."""
    journal.failed(journal.started("order-1", at=time.time()))
    journal.started("order-2")
    journal.started("order-3", workflow="shop.invoice", parent="shop.checkout/order-2")

    def keys(*argv: str) -> list[str]:
        found = json.loads(shop("executions", "list", "--json", *argv).out)
        return [each["id"].rpartition("/")[2] for each in found]

    assert keys("--status", "failed") == ["order-1"]
    assert sorted(keys("--status", "failed", "--status", "running")) == [
        "order-1",
        "order-2",
        "order-3",
    ]
    assert keys("--workflow", "shop.invoice") == ["order-3"]
    assert keys("--key", "-2") == ["order-2"]
    assert keys("--parent", "order-2") == ["order-3"]
    assert sorted(keys("--older-than", "30m")) == ["order-2", "order-3"]


def test_a_workflow_that_is_misspelt_has_its_nearest_name(shop: Shop, journal: Journal) -> None:
    """A workflow that no module defines may be a slip: the nearest name is said."""
    found = shop("executions", "list", "--workflow", "shop.welcom")

    assert found.code == 0
    assert "did you mean 'shop.welcome'?" in found.err


def test_a_list_says_that_there_are_more(shop: Shop, journal: Journal) -> None:
    """A table ends after its limit and says so; JSON has all, page by page."""
    for number in range(3):
        journal.started(f"order-{number}")

    found = shop("executions", "list", "--limit", "2")

    assert "more than these 2" in found.err
    assert len(json.loads(shop("executions", "list", "--json").out)) == 3


def test_pages_hold_each_execution_once(
    shop: Shop, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executions that began in one instant are on either side of a page once."""
    monkeypatch.setattr(_executions_found, "PAGE", 4)
    for number in range(11):
        journal.started(f"order-{number}", at=AT + number // 3)

    found = json.loads(shop("executions", "list", "--json").out)

    assert sorted(each["id"] for each in found) == sorted(
        f"shop.checkout/order-{number}" for number in range(11)
    )


def test_arguments_stand_in_no_list(shop: Shop, journal: Journal) -> None:
    """C4: a list holds no values."""
    journal.failed(journal.started())

    assert "nnnn" not in shop("executions", "list").out
    assert "nnnn" not in shop("executions", "list", "--json").out


# One.


@pytest.mark.parametrize("name", ["shop.checkout/order-7", "order-7", "shop.ch", "order"])
def test_ids_keys_and_their_beginnings(shop: Shop, journal: Journal, name: str) -> None:
    """An execution is named by its id, its key, or the beginning of either."""
    journal.started()

    assert "shop.checkout/order-7" in shop("executions", "show", name).out


def test_a_whole_key_goes_before_the_beginning_of_others(shop: Shop, journal: Journal) -> None:
    """`order-1` is meant, although `order-10` begins so."""
    journal.started("order-1")
    journal.started("order-10")

    assert shop("executions", "show", "order-1").code == 0


def test_an_ambiguous_name_lists_those_that_are_meant(shop: Shop, journal: Journal) -> None:
    """Several executions of one key or beginning are named, and nothing is done."""
    journal.started("order-7")
    journal.started("order-7", workflow="shop.invoice")

    found = shop("executions", "cancel", "order-7")

    assert found.code == 2
    assert "shop.checkout/order-7" in found.err
    assert "shop.invoice/order-7" in found.err
    assert len(journal.entries("shop.checkout/order-7", timeout=TIMEOUT)) == 0


def test_a_name_that_is_unknown_has_its_nearest(shop: Shop, journal: Journal) -> None:
    """A mistyped key is answered with the nearest; without one, with the command that lists."""
    journal.started()

    assert "did you mean 'order-7'?" in shop("executions", "show", "ordr-7").err
    assert "dispatchers executions list" in shop("executions", "show", "xyz").err


def test_show_has_what_an_operator_asks(shop: Shop, journal: Journal) -> None:
    """Status, arguments, state, result, parent, children, and what it waits for."""
    name = journal.started()
    journal.charged(name)
    journal.turned(name, state=b'{"stage":"paying"}')
    journal.started("order-8", parent=name, parent_number=2)

    found = shop("executions", "show", "order-7").out

    for words in (
        "order=7",
        '{"stage":"paying"}',
        "waits for:",
        "step shop.charge (1)",
        "shop.checkout/order-8 (running)",
    ):
        assert words in found
    assert "n" * 200 not in found
    assert "n" * 200 in shop("executions", "show", "order-7", "--values").out


def test_show_for_programs(shop: Shop, journal: Journal) -> None:
    """JSON has the values whole."""
    journal.completed(journal.started())

    found = json.loads(shop("executions", "show", "order-7", "--json").out)

    assert found["status"] == "completed"
    assert found["arguments"]["order"] == 7
    assert found["output"] == {"paid": True}
    assert found["waits_for"] == ""


def test_a_journal_reads_as_a_story(shop: Shop, journal: Journal, lines: Lines) -> None:
    """Each command is a line with its number, instant, arguments and what came of it."""
    journal.failed(journal.started())

    head, began, step, end = lines(shop("executions", "journal", "order-7").out)

    assert head.split()[:2] == ["NO", "AT"]
    assert "began shop.checkout(order=7" in began
    assert step.startswith("1 ")
    assert "step shop.charge(order=7) -> failed after 1 s: shop.Declined: no money" in step
    assert "failed -> shop.Declined: no money" in end


def test_a_journal_ends_with_what_it_waits_for(shop: Shop, journal: Journal) -> None:
    """The last line says what an execution waits for."""
    journal.charged(journal.started())

    found = shop("executions", "journal", "order-7").out

    assert found.splitlines()[-1] == "waits for step shop.charge (1)"
    told = json.loads(shop("executions", "journal", "order-7", "--json").out)
    assert told["journal"][-1]["is_open"] is True


# Acts.


def test_cancelling_is_recorded_and_wakes(shop: Shop, journal: Journal) -> None:
    """D11: a cancellation is an entry with its reason; what has ended is kept as it is."""
    journal.charged(journal.started("order-7"))
    journal.completed(journal.started("order-8"))

    found = shop("executions", "cancel", "order-7", "order-8", "--reason", "he called")

    assert found.code == 1
    assert [line.split()[:2] for line in found.out.splitlines()[1:]] == [
        ["shop.checkout/order-7", "cancelling"],
        ["shop.checkout/order-8", "kept"],
    ]
    assert "it is completed" in found.out
    assert "cancel: he called" in shop("executions", "journal", "order-7").out


def test_a_mistyped_name_changes_nothing(shop: Shop, journal: Journal) -> None:
    """All names are looked up before anything is done."""
    journal.started()

    found = shop("executions", "terminate", "order-7", "typo")

    assert found.code == 2
    assert journal.status("shop.checkout/order-7") is Status.RUNNING


def test_terminating(shop: Shop, journal: Journal) -> None:
    """D11: a termination runs no code; its reason is kept."""
    journal.charged(journal.started())

    found = shop("executions", "terminate", "order-7", "--reason", "by hand")

    assert found.code == 0
    assert journal.status("shop.checkout/order-7") is Status.TERMINATED
    assert "by hand" in shop("executions", "list").out


def test_resuming(shop: Shop, journal: Journal) -> None:
    """D12: a failed execution goes on; one that runs is kept as it is."""
    journal.failed(journal.started())

    assert shop("executions", "resume", "order-7").code == 0
    assert journal.status("shop.checkout/order-7") is Status.RUNNING
    again = shop("executions", "resume", "order-7")
    assert (again.code, "it is running" in again.out) == (1, True)


def test_resuming_from_a_number(shop: Shop, journal: Journal) -> None:
    """The number must be one of the execution's commands."""
    journal.failed(journal.started())

    wrong = shop("executions", "resume", "order-7", "--from", "9")
    right = shop("executions", "resume", "order-7", "--from", "1")

    assert (wrong.code, "they are 1 to 1" in wrong.err) == (2, True)
    assert right.code == 0
    assert not journal.entries("shop.checkout/order-7", timeout=TIMEOUT)


def test_exporting(shop: Shop, journal: Journal) -> None:
    """An export is JSON with all values, on standard output or as a file for each."""
    journal.completed(journal.started("order-7"))
    journal.started("order-8")

    found = read_export(shop("executions", "export", "order-7").out)
    several = shop("executions", "export", "order-7", "order-8", "--out", "histories")

    assert found.record == journal.look("shop.checkout/order-7", timeout=TIMEOUT)
    assert several.code == 0
    files = sorted(Path("histories").iterdir())
    assert [file.name for file in files] == [
        "shop.checkout%2Forder-7.json",
        "shop.checkout%2Forder-8.json",
    ]
    assert read_export(files[0].read_text()) == found
    assert shop("executions", "export", "order-7", "order-8").code == 2


def test_a_folder_that_cannot_be_written(shop: Shop, journal: Journal) -> None:
    """The message names the file and the cause."""
    journal.started()
    Path("taken").write_text("")

    found = shop("executions", "export", "order-7", "--out", "taken")

    assert found.code == 2
    assert "taken" in found.err


def test_forgetting_asks_first(shop: Shop, journal: Journal) -> None:
    """Only ended executions are forgotten, those that ended before, and never unasked."""
    journal.completed(journal.started("old"))
    journal.completed(journal.started("young"), at=time.time())
    journal.started("running")

    refused = shop("executions", "forget", "--older-than", "30m")
    done = shop("executions", "forget", "--older-than", "30m", "--yes")

    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert done.out == "1 forgotten\n"
    assert journal.status("shop.checkout/old") is None
    assert journal.status("shop.checkout/young") is Status.COMPLETED
    assert journal.status("shop.checkout/running") is Status.RUNNING


def test_a_journal_that_is_down(
    shop: Shop, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that does not answer is one line, and exit code 2."""

    def down(*_: object, **__: object) -> None:
        raise JournalError("the journal /var/x.sqlite3 is full: free some space")

    monkeypatch.setattr(journal, "find", down)
    found = shop("executions", "list")

    assert (found.code, found.out) == (2, "")
    assert found.err == "dispatchers: the journal /var/x.sqlite3 is full: free some space\n"


def test_without_a_journal(shop: Shop) -> None:
    """The message says which setting names one."""
    pytest.importorskip("rq")
    shop.configure(f'{SHOP}default = {{ backend = "rq", url = "redis://localhost:1" }}\n')

    found = shop("executions", "list")

    assert found.code == 2
    assert "workflows" in found.err
