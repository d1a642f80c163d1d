"""Files that former versions wrote, as they wrote them: `golden/*.db`.

Each has two jobs that wait, one of a queue and a priority of its own, one that was delayed for a
second, one that is done, a dead one, and a claim that is completed.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DispatchRequest
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.journals import Start
from dispatchers.sqlite import SQLiteIdempotencyStore, SQLiteJournal
from dispatchers.sqlite._schema import STEPS

HERE = Path(__file__).parent
LAYOUTS = {"queue_0.1.0": 2, "queue_layout_4": 4}


@pytest.fixture(params=LAYOUTS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, which only its owner may read, as the original."""
    path = tmp_path / "queue.db"
    shutil.copyfile(HERE / "golden" / f"{request.param}.db", path)
    path.chmod(0o600)
    assert layout(path) == LAYOUTS[request.param]
    return path


@pytest.fixture
def queue(file: Path) -> Iterator[SQLiteDispatcher]:
    dispatcher = SQLiteDispatcher(path=file)
    yield dispatcher
    dispatcher.close()


def layout(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_a_worker_does_what_a_former_version_has_queued(
    queue: SQLiteDispatcher, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C9, C11: the file is upgraded when it is opened, and its jobs run in their order."""
    notes = tmp_path / "notes"
    monkeypatch.setenv("GOLDEN_NOTES", str(notes))
    monkeypatch.syspath_prepend(HERE)

    work = WorkerOptions(modules=("golden_tasks",), drain=True, grace=20.0)
    code = queue._worker(work).run()

    assert code == 0
    assert notes.read_text().split() == ["first", "waits", "delayed"]
    assert layout(file) == len(STEPS)


@pytest.mark.parametrize("key", ["done", "waits"])
def test_keys_of_a_former_version_are_known(queue: SQLiteDispatcher, key: str) -> None:
    """C10: of what waits, and of what is done."""
    request = DispatchRequest(task="golden.note", idempotency_key=key, payload={"text": key})

    assert queue.dispatch(request).status == "duplicate"


def test_dead_letters_of_a_former_version_are_there(queue: SQLiteDispatcher) -> None:
    """C9: they are read, and dispatched again."""
    store: Any = queue._dead_letters()
    (letter,) = store.list()

    assert (letter.error.exception_type, letter.error.message) == ("TypeError", "dead")
    assert store.replay(letter.id)
    assert queue._store.counts().dead == 0


def test_claims_of_a_former_version_are_known(file: Path) -> None:
    """C10: what was completed is not done again."""
    store = SQLiteIdempotencyStore(file)

    assert store.claim("golden.note known", "another", 60.0).state == "done"
    store.close()


def test_executions_may_begin_in_a_file_of_a_former_version(
    queue: SQLiteDispatcher, file: Path
) -> None:
    """The journal is added beside the jobs."""
    journal = SQLiteJournal(file)
    start = Start("shop.flow/1", "shop.flow", 1, "default", None, b"{}", b"{}", time.time())

    assert journal.begin(start, timeout=5).first
    assert queue._store.counts().queues == {"default": 1, "other": 1}
    journal.close()
