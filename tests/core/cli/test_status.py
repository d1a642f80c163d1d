"""`status`: how much waits, and what cannot be said."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers._journal.loading import in_place, journal
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.values import Commit, Start, Status, Turn
from dispatchers.sqlite import SQLiteJournal

from .conftest import SHOP, Shop

TWO = f"""{SHOP}
default = {{ backend = "sqlite", path = "q.db", queues = ["default", "mail"] }}
tracking = {{ backend = "sqlite", path = "q.db" }}
here = "inline"
silent = "null"
"""


def test_status_shows_each_queue(shop: Shop, lines: Callable[[str], list[str]]) -> None:
    """`status` shows every queue with its figures; aliases of one place stand together."""
    shop.configure(TWO)
    shop("dispatch", "shop.welcome", "user_id=1")
    shop("dispatch", "shop.welcome", "user_id=2", "--delay", "1h")

    said = shop("status")

    rows = [line.split()[-6:] for line in lines(said.out)]
    assert said.code == 0
    assert rows[0] == ["QUEUE", "WAITING", "RUNNING", "DELAYED", "DEAD", "OLDEST"]
    assert rows[1][:5] == ["default", "0", "0", "0", "0"] or "default" in lines(said.out)[1]
    assert any("default, tracking" in line and "mail" in line for line in lines(said.out))


def test_status_says_what_it_cannot_tell(shop: Shop) -> None:
    """A backend that cannot tell is named with the reason, and is no error."""
    shop.configure(TWO)

    said = shop("status")

    assert said.code == 0
    assert "here (inline): nothing waits: 'inline' runs tasks in the call" in said.err
    assert "silent (null): backend 'null' cannot say how much waits" in said.err


def test_status_json_has_nulls_for_what_is_unknown(shop: Shop) -> None:
    """`status --json` has one object per place, its queues, and the reason where there are none."""
    shop.configure(TWO)
    shop("dispatch", "shop.welcome", "user_id=1")

    found = {each["dispatcher"]: each for each in json.loads(shop("status", "--json").out)}

    queues = {each["queue"]: each for each in found["default"]["queues"]}
    assert found["default"]["aliases"] == ["default", "tracking"]
    assert queues["mail"]["waiting"] == 1
    assert queues["mail"]["oldest"] >= 0.0
    assert queues["mail"]["at"].endswith("+00:00")
    assert found["silent"]["queues"] == []
    assert found["silent"]["reason"]


def test_status_of_one_alias(shop: Shop) -> None:
    """`status ALIAS` looks at one dispatcher; an unknown one is an error with the nearest name."""
    shop.configure(TWO)

    found = json.loads(shop("status", "tracking", "--json").out)
    wrong = shop("status", "trackin")

    assert [each["dispatcher"] for each in found] == ["tracking"]
    assert wrong.code == 2
    assert "tracking" in wrong.err


def test_a_backend_that_cannot_be_asked_is_a_problem(shop: Shop) -> None:
    """A backend that cannot be asked is named on standard error, and the exit code says so."""
    (shop.folder / "q.db").write_text("this is no database " * 100)
    shop.configure(TWO)

    said = shop("status")

    assert said.code == 1
    assert "default, tracking (sqlite): " in said.err


BOTH = f"""{SHOP}
default = {{ backend = "failover", to = ["main", "backup", "silent"] }}
main = {{ backend = "sqlite", path = "q.db" }}
backup = {{ backend = "sqlite", path = "backup.db" }}
silent = "null"
"""


@pytest.mark.parametrize("broken", [False, True])
def test_status_of_a_failover_names_who_is_not_counted(shop: Shop, broken: bool) -> None:
    """A member that cannot be asked is a problem, one that cannot count a note; others count."""
    if broken:
        (shop.folder / "backup.db").write_text("this is no database " * 100)
    shop.configure(BOTH)
    shop("dispatch", "shop.welcome", "user_id=1")

    said, (found,) = shop("status", "default"), json.loads(shop("status", "--json", "default").out)

    told = " ".join(said.err.split())
    assert said.code == broken
    assert ("default (failover): 'backup' (sqlite): " in told) is broken
    assert "not counted is 'silent': backend 'null' cannot say how much waits" in told
    assert {each["queue"]: each["waiting"] for each in found["queues"]} == {"default": 0, "mail": 1}


def begun(key: str, **commit: Any) -> None:
    """Begin an execution, and take a turn of it if it is given a commit."""
    body = b'{"task":"shop.checkout"}'
    start = Start(f"shop.checkout/{key}", "shop.checkout", 1, "tracking", None, b"{}", body, 0.0)
    journal().begin(start, timeout=5.0)
    if commit:
        turn = journal().take(start.execution, "worker", wakeup="w", after=0, timeout=5.0)
        assert isinstance(turn, Turn)
        journal().commit(turn, Commit(1.0, 0, **commit), timeout=5.0)


@pytest.fixture(params=["memory", "sqlite"])
def counting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A journal that counts, in place of the configured one."""
    made = MemoryJournal() if request.param == "memory" else SQLiteJournal(tmp_path / "journal.db")
    with in_place(made):
        yield
    made.close()


@pytest.mark.usefixtures("counting")
def test_status_counts_executions(shop: Shop, lines: Callable[[str], list[str]]) -> None:
    """Those that run, are parked and stuck, workflow by workflow; what has ended is left out."""
    shop.configure(TWO)
    begun("a")
    begun("b", status=Status.RUNNING)
    begun("c", status=Status.RUNNING)
    begun("d", status=Status.STUCK)
    begun("e", status=Status.COMPLETED)

    said, found = shop("status"), json.loads(shop("status", "--json").out)

    rows = [line.split() for line in lines(said.out)]
    assert ["DISPATCHER", "WORKFLOW", "RUNNING", "PARKED", "STUCK"] in rows
    assert ["tracking", "shop.checkout", "1", "2", "1"] in rows
    assert [each["workflows"] for each in found if each["dispatcher"] == "default"] == [
        [
            {
                "workflow": "shop.checkout",
                "dispatcher": "tracking",
                "running": 1,
                "parked": 2,
                "stuck": 1,
            }
        ]
    ]
    assert json.loads(shop("status", "here", "--json").out)[0]["workflows"] == []


def test_a_journal_that_cannot_be_asked_is_a_problem(shop: Shop) -> None:
    """Executions are not known then; a target without a journal has none to show."""
    shop.configure(TWO)
    (shop.folder / "journal.db").write_text("this is no database " * 100)
    shop.configure(f'workflows = "sqlite:journal.db"\n{TWO}')

    said = shop("status")

    assert said.code == 1
    assert "executions: journal: " in said.err
    shop.configure(f'{SHOP}default = "null"\n')
    assert shop("status").code == 0


def test_watch_looks_again_until_interrupted(shop: Shop) -> None:
    """`status --watch --json` writes one line per look, and ends at Ctrl-C with exit code 0."""
    shop.configure(TWO)
    command = [sys.executable, "-m", "dispatchers", "status", "--watch", "100ms", "--json"]
    with subprocess.Popen(command, cwd=shop.folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()

    assert json.loads(first)[0]["dispatcher"] == json.loads(second)[0]["dispatcher"] == "default"
    assert process.returncode == 0
