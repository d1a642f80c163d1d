"""`relay`: what dispatchers hold in stores is handed over by a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DispatchRequest, close_all, get_dispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing import RecordingDispatcher, processes

from .conftest import Shop

SPILL = """modules = ["cli_shop"]
target = "test"
[targets.test]
default = { backend = "spill", to = "queue", path = "spill.db" }
queue = { backend = "sqlite", path = "queue.db" }
here = "inline"
"""


@pytest.fixture
def held(shop: Shop) -> Shop:
    """A shop with three pieces of work that an earlier process has kept."""
    shop.configure(SPILL)
    broker = RecordingDispatcher(alias="queue")
    spill = SpillDispatcher(to=broker, path=str(shop.folder / "spill.db"))
    spill.forwarder.start = lambda: None  # type: ignore[method-assign]
    with broker.down():
        for n in range(3):
            request = DispatchRequest(task="shop.welcome", payload={"user_id": n})
            assert spill.dispatch(request).status == "deferred"
    spill.close()
    return shop


def waiting(alias: str) -> int:
    """What a dispatcher has; of the spill, what it holds itself."""
    found: Any = get_dispatcher(alias)
    if isinstance(found, SpillDispatcher):
        return found.held.totals(timeout=5)[0]
    return sum(each.waiting or 0 for each in found.stats())


def test_it_hands_over_what_is_held(held: Shop) -> None:
    """`--drain` ends when nothing is held."""
    said = held("relay", "--drain")

    assert said.code == 0
    assert "relay for 'default' of target 'test'" in said.err
    assert (waiting("default"), waiting("queue")) == (0, 3)
    close_all()


def test_one_alias_may_be_named(held: Shop) -> None:
    """The others are left alone."""
    assert held("relay", "default", "--drain").code == 0
    assert waiting("queue") == 3
    close_all()


@pytest.mark.parametrize("argv", [["relay", "queue"], ["relay", "here"]])
def test_what_holds_nothing_has_no_relay(held: Shop, argv: list[str]) -> None:
    """An error that says so, and not a process that does nothing."""
    said = held(*argv)

    assert said.code == 2
    assert "hold no work themselves" in said.err


def test_a_worker_relays_too(held: Shop) -> None:
    """Beside its own work; `--no-relay` leaves it."""
    left = held.process("worker", "queue", "--drain", "--concurrency", "1", "--no-relay")
    before = waiting("default")
    command = [sys.executable, "-m", "dispatchers", "worker", "queue", "--concurrency", "1"]
    with subprocess.Popen(command, cwd=held.folder, stderr=subprocess.DEVNULL) as process:
        processes.wait_until(lambda: waiting("default") == 0, "the worker does not relay")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    assert (left.returncode, before) == (0, 3)
    close_all()


def test_a_store_that_is_away_is_not_drained(held: Shop) -> None:
    """C9: `--drain` does not take a store that cannot be reached for an empty one."""
    (held.folder / "spill.db").rename(held.folder / "away.db")
    (held.folder / "spill.db").mkdir()
    with _relay(held.folder, "--drain") as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "could not be handed over" in line)
        went_on = process.poll() is None
        (held.folder / "spill.db").rmdir()
        (held.folder / "away.db").rename(held.folder / "spill.db")
        code = process.wait(30)

    assert "'queue'" in said
    assert (went_on, code) == (True, 0)
    assert (waiting("default"), waiting("queue")) == (0, 3)
    close_all()


def test_help_says_what_drain_waits_for(shop: Shop) -> None:
    """Who writes a cron job reads that it has to bound the time."""
    said = " ".join(shop("relay", "--help").out.split())

    assert "A store or a broker that cannot be reached is waited for" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
def test_a_signal_ends_it(held: Shop) -> None:
    """SIGTERM ends it in order, also while its broker takes nothing."""
    (held.folder / "dispatchers.toml").write_text(
        SPILL.replace('backend = "sqlite", path = "queue.db"', 'backend = "sqlite", path = "no/q"')
    )
    with _relay(held.folder) as process:
        assert process.stderr is not None
        assert "relay for" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 0


def _relay(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dispatchers", "relay", *options]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
