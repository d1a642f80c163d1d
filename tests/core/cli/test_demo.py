"""`demo`: it shows the truth, and going on after `kill -9` is part of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatchers.demo import tasks
from dispatchers.demo._flow_folder import FlowFolder
from dispatchers.demo._folder import chosen
from dispatchers.demo._index import Index, facts
from dispatchers.demo._source import library_files

from .conftest import Shop

FILES = 60
MANY = 400
"""Files that nobody has indexed by the time a test has seen the first and sent a signal."""


MANY_ALONE = ("--only", "tasks", "--limit", str(MANY))


def demo(folder: Path, *argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dispatchers", "demo", "--dir", str(folder), *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(folder: Path, *argv: str, files: int = FILES) -> str:
    return ended(folder, "--only", "tasks", "--limit", str(files), *argv)


def ended(folder: Path, *argv: str, seconds: float = 110) -> str:
    with demo(folder, *argv) as process:
        out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo has run, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, finished(folder)


def rows(folder: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(folder / "index.sqlite3")) as connection:
        return connection.execute("SELECT path, attempt FROM files").fetchall()


def test_every_file_is_indexed_once_and_what_fails_at_first_is_retried(
    once: tuple[Path, str],
) -> None:
    """The demo indexes every file once; reading some fails in the first attempt."""
    folder, out = once

    files = [str(file) for file in library_files(FILES)]
    indexed = dict(rows(folder))
    assert sorted(indexed) == files
    assert [path for path in files if indexed[path] > 1] == [p for p in files if tasks.is_flaky(p)]
    assert "accepted" in out
    assert "lost" in out


def test_killed_half_way_and_started_again_it_finishes(tmp_path: Path) -> None:
    """C9: after `kill -9` of the demo the next one goes on: nothing lost, nothing twice."""
    with demo(tmp_path, *MANY_ALONE) as process:
        wait_for_some_files(tmp_path)
        process.kill()
    orphan = tmp_path / "worker.pid"
    first = set(dict(rows(tmp_path)))
    out = finished(tmp_path, files=MANY)

    assert "going on" in out
    assert "duplicate" in out
    assert first
    assert sorted(dict(rows(tmp_path))) == [str(file) for file in library_files(MANY)]
    assert not orphan.exists()


def wait_for_some_files(folder: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (folder / "index.sqlite3").exists() and indexed(folder) >= 5:
            return
        time.sleep(0.01)
    raise AssertionError("nothing was indexed")


def indexed(folder: Path) -> int:
    try:
        return len(rows(folder))
    except sqlite3.OperationalError:  # not created yet, or in use
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_worker_ends_with_the_demo_that_was_killed(tmp_path: Path) -> None:
    """A worker whose demo was killed notices, and ends."""
    with demo(tmp_path) as process:
        wait_for_some_files(tmp_path)
        worker = int((tmp_path / "worker.pid").read_text())
        process.kill()

    until = time.monotonic() + 30
    while time.monotonic() < until and alive(worker):
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2:3] if _proc() else True


def _proc() -> bool:
    return Path("/proc/self/stat").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_it_in_order_and_it_can_go_on(tmp_path: Path) -> None:
    """Ctrl-C ends the demo and its worker with 130; the next run goes on, to its own Ctrl-C."""
    with demo(tmp_path, *MANY_ALONE) as process:
        wait_for_some_files(tmp_path)
        out = interrupted(process)
    with demo(tmp_path, *MANY_ALONE) as process:
        assert process.stdout is not None
        assert any("going on" in line for line in process.stdout)
        interrupted(process)

    assert "goes on where it was" in out
    assert not (tmp_path / "worker.pid").exists()


def interrupted(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    return out


def test_a_finished_run_begins_anew(once: tuple[Path, str]) -> None:
    """After a run that finished the next one begins with nothing."""
    folder, _ = once

    again = finished(folder)

    assert "going on" not in again
    assert "duplicate" not in again


def test_what_is_configured_around_it_does_not_change_it(tmp_path: Path, shop: Shop) -> None:
    """Neither a broken dispatchers.toml nor the environment disturbs the demo."""
    (shop.folder / "dispatchers.toml").write_text("nonsense = 1\n")

    done = shop.process(
        "demo", "--dir", str(tmp_path / "demo"), "--limit", "5", "--only", "tasks",
        DISPATCHERS_TARGET="elsewhere",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_its_dead_letter_can_be_looked_at_as_it_says(once: tuple[Path, str], shop: Shop) -> None:
    """The poisoned file ends as a dead letter, and the command that the demo names shows it."""
    folder, _ = once

    listed = shop("--config", str(folder / "dispatchers.toml"), "dead", "list")

    assert listed.code == 0
    assert "demo.index_file" in listed.out
    assert "ValueError" in listed.out


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with closing(Index(str(tmp_path / "index.sqlite3"))) as found:
        found.create()
        yield found


def test_writing_twice_leaves_one_row(index: Index) -> None:
    """C10: a task that runs twice leaves one row, and the second time is counted."""
    index.add("a.py", facts(b"def f(): g()\n"), 1)
    index.add("a.py", facts(b"def f(): g()\n"), 2)

    found = index.found()
    assert (found.files, found.rewritten, found.attempts) == (1, 1, {1: 1})


def test_facts_are_what_is_in_the_file() -> None:
    """Lines, words, definitions and calls are counted; keywords and definitions are no calls."""
    text = b"class A(B):\n    async def f(self):\n        if (x): g(h(1), g(2))\n\ndef f(): pass\n"

    found = facts(text)

    assert (found.lines, found.functions, found.classes) == (5, 2, 1)
    assert found.calls == '{"g": 2, "h": 1}'


@pytest.mark.parametrize(
    "data", [b"# coding: latin-1\n\xe9()\n", b"# coding: nonsense\n\xff\n", b"\xff"]
)
def test_any_text_is_read(data: bytes) -> None:
    """Files in other encodings, and in none that there is, are read."""
    assert facts(data).lines >= 0


def test_what_is_no_text_is_refused() -> None:
    """The poisoned file is no text, and says so."""
    with pytest.raises(ValueError, match="not text"):
        facts(b"\0")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="symbolic links")
def test_a_folder_that_is_not_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the temporary folder, where anybody may write, a link laid for us is not followed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = chosen(None).path
    place.rmdir()
    place.symlink_to(tmp_path)

    with pytest.raises(ValueError, match="another user"):
        chosen(None)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_workflow_goes_on_after_its_worker_was_killed(tmp_path: Path, shop: Shop) -> None:
    """D3: once a worker was killed half-way, another runs only what is not recorded."""
    out = ended(tmp_path, "--only", "workflow", seconds=350)

    folder = FlowFolder(tmp_path / "workflow")
    runs = folder.runs()
    steps = {run.step for run in runs}
    rows = (line.rpartition(" ") for line in out.splitlines())
    said = {text.strip(): count for text, _, count in rows}
    assert len({run.worker for run in runs}) == 2
    # What the killed worker was at runs once more; all else ran once.
    assert len(runs) - len(steps) <= 1
    assert int(said["recorded with their results"]) == len(steps)
    assert said["lost"] == "0"
    told = shop("--config", str(folder.configuration), "executions", "journal", "survey").out
    assert "completed" in told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_halves_follow_each_other(tmp_path: Path) -> None:
    """Without an option the tasks come first, then the workflow."""
    out = ended(tmp_path, "--limit", "5", seconds=350)

    assert out.index("What they found") < out.index("killed by kill -9")
