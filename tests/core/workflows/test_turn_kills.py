"""K1 to K14: a worker's process ends at one very call, and the execution ends as if it had not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatchers._config.api import reload
from dispatchers.testing.processes import family, kill

JOURNAL = "dispatchers.sqlite._journal:SQLiteJournal"
TURN = "dispatchers.workflows._turn"
STEPS = "dispatchers._worker.steps"
HERE = Path(__file__).parent

TOML = """
tasks = ["kill_flows"]
workflows = "sqlite:{folder}/journal.sqlite3"
[targets.test]
default = {{ backend = "sqlite", path = "{folder}/near.sqlite3", lease = 2.0 }}
far = {{ backend = "sqlite", path = "{folder}/far.sqlite3", lease = 2.0 }}
"""

AT_MOST_ONCE = {"add 3": 1, "add 4": 1, "far x": 1, "rate": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment with two queues and a journal, each in a file."""
    (tmp_path / "dispatchers.toml").write_text(TOML.format(folder=tmp_path))
    for name, value in {
        "DISPATCHERS_CONFIG": str(tmp_path / "dispatchers.toml"),
        "DISPATCHERS_TARGET": "test",
        "KILL_FOLDER": str(tmp_path),
        "PYTHONPATH": str(HERE),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def worker(folder: Path) -> Iterator[Callable[..., None]]:
    """Starts workers, and ends them."""
    running: list[subprocess.Popen[bytes]] = []

    def start(alias: str, kill_at: str = "") -> None:
        command = [sys.executable, "-m", "dispatchers", "worker", alias, "--concurrency", "1"]
        env = {**os.environ, "KILL_AT": kill_at}
        with (folder / f"{alias}.log").open("ab") as log:
            running.append(subprocess.Popen(command, env=env, stderr=log, start_new_session=True))

    yield start
    for each in running:
        kill(family(each.pid))
        each.wait()


@pytest.fixture
def kill_flows(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The flows, with this process as their producer."""
    monkeypatch.syspath_prepend(str(HERE))
    import kill_flows

    # Read anew: the environment names another file.
    reload()
    yield kill_flows
    monkeypatch.undo()
    reload()


def effects(folder: Path) -> Counter[str]:
    path = folder / "effects"
    return Counter(path.read_text().split("\n")[:-1]) if path.exists() else Counter()


KILLS = {
    "K2 before begin": (f"before {JOURNAL}.begin 1", {}),
    "K3 after begin": (f"after {JOURNAL}.begin 1", {}),
    "K4 after take": (f"after {JOURNAL}.take 1", {}),
    "K4 after a later take": (f"after {JOURNAL}.take 3", {}),
    "K5 in a local step": ("in the local step", {"rate": 2}),
    "K6 after each commit": (f"after {JOURNAL}.commit 2", {}),
    "K7 before the commit": (f"before {JOURNAL}.commit 1", {}),
    "K8 after the commit": (f"before {TURN}:hand_over 1", {}),
    "K8 before it is noted": (f"before {JOURNAL}.sent 1", {}),
    "K11 in the step": ("in the step", {"add 3": 2}),
    "K12 after the answer": (f"after {JOURNAL}.answer 1", {}),
    "K12 after the wake-up": (f"after {STEPS}:woken 1", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_a_worker_that_dies_changes_nothing(name, folder, worker, kill_flows):
    """D2, D3, D10: the result is the same, and each effect there once, or twice where K says so."""
    kill_at, more = KILLS[name]
    worker("default", kill_at)
    worker("far")
    kill_flows.flow.options(idempotency_key="k").dispatch(3).raise_for_error()
    kill_flows.approval.send(kill_flows.flow, "k", 9).raise_for_error()
    execution = kill_flows.flow.execution("k")

    assert execution.result(timeout=120) == [5, "x", 1, 1.5, 9]
    assert (folder / "died").exists()
    assert effects(folder) == Counter({**AT_MOST_ONCE, **more})
    numbers = [line.number for line in execution.journal() if line.number is not None]
    assert sorted(numbers) == [1, 2, 3, 4, 5]
