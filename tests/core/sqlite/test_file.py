"""The file: whose it is, who may read it, which version it has."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dispatchers.sqlite import (
    SQLiteStore,
    StoreBusyError,
    StoreFormatError,
    StoreFullError,
    _schema,
)
from dispatchers.sqlite._file import check_space
from dispatchers.sqlite._schema import APPLICATION_ID, STEPS, prepare


def test_only_its_owner_may_read_the_file(desk: Any, store: SQLiteStore) -> None:
    """The file and its companions have mode 0600 whatever the umask."""
    previous = os.umask(0)
    try:
        store.put(desk.job(), timeout=1)
    finally:
        os.umask(previous)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in desk.path.parent.iterdir()}

    assert modes == {"queue.db": 0o600, "queue.db-wal": 0o600, "queue.db-shm": 0o600}


def test_a_strict_umask_does_not_lock_the_owner_out(desk: Any, store: SQLiteStore) -> None:
    """The mode is 0600 even where the umask takes everything away."""
    previous = os.umask(0o777)
    try:
        store.put(desk.job(), timeout=1)
    finally:
        os.umask(previous)

    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600


def test_full_synchronisation_is_the_default(desk: Any) -> None:
    """C9: what is answered is on the disk; less is an explicit choice."""
    modes = {}
    for synchronous in ("full", "normal"):
        store = desk.open(synchronous=synchronous)
        store.open(timeout=1)
        connection = store.database._slot.connection
        modes[synchronous] = connection.execute("PRAGMA synchronous").fetchone()[0]

    default = desk.open()
    default.open(timeout=1)

    assert modes == {"full": 2, "normal": 1}
    assert default.database._slot.connection.execute("PRAGMA synchronous").fetchone()[0] == 2


@pytest.mark.parametrize(
    "options",
    [{"synchronous": "off"}, {"lease": 0}, {"lease": float("nan")}, {"retention": -1}],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """What is wrong at construction raises there."""
    with pytest.raises(ValueError):
        SQLiteStore(tmp_path / "queue.db", **options)


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_path_that_is_no_file_is_refused(path: str) -> None:
    """A queue in memory would be another one for each process."""
    with pytest.raises(ValueError, match="name a file"):
        SQLiteStore(path)


def test_the_file_stays_the_same_when_the_working_directory_changes(
    desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is made absolute when the store is built, not when it is opened."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("queue.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    store.put(desk.job(), timeout=1)
    store.close()

    assert store.path == str(desk.path)
    assert desk.path.exists()


def test_an_older_file_is_upgraded(desk: Any) -> None:
    """A file of version 1 keeps its jobs and gets what came with version 2."""
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as old:
        prepare(old, str(desk.path), STEPS[:1])
        old.execute(
            "INSERT INTO jobs (id, task, queue, state, priority, run_at, attempt, token,"
            " created_at, body) VALUES ('a', 't', 'q', 0, 0, 1, 1, 1, 1, x'00')"
        )
        assert old.execute("PRAGMA user_version").fetchone() == (1,)

    store = desk.open()

    assert store.counts().queues == {"q": 1}
    connection = store.database._slot.connection
    assert connection.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
    assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)


def test_an_upgrade_that_fails_changes_nothing(
    desk: Any, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps of an upgrade are one transaction."""
    store.put(desk.job(), timeout=1)
    store.close()
    bad = [*STEPS, ("CREATE TABLE extra (x)", "no SQL at all")]
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            prepare(connection, str(desk.path), bad)

    assert desk.open().counts().ready == 1
    with closing(sqlite3.connect(desk.path)) as connection:
        assert (
            connection.execute("SELECT * FROM sqlite_master WHERE name = 'extra'").fetchall() == []
        )


def test_a_newer_file_is_refused(desk: Any, store: SQLiteStore) -> None:
    """C11: a layout of the future is not guessed at; the message says what to do."""
    store.open(timeout=1)
    store.close()
    with closing(sqlite3.connect(desk.path)) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreFormatError, match=r"version 99.*upgrade dispatchers") as caught:
        desk.open().put(desk.job(), timeout=1)

    assert not caught.value.maybe_written


@pytest.mark.parametrize("statement", ["CREATE TABLE books (x)", "PRAGMA user_version = 1"])
def test_a_database_of_another_program_is_refused_and_left_alone(desk: Any, statement: str) -> None:
    """A file that is not ours is not written to, not even its mode of journaling."""
    with closing(sqlite3.connect(desk.path)) as other:
        other.execute(statement)
        other.commit()
    before = desk.path.read_bytes()

    with pytest.raises(StoreFormatError, match="another program"):
        desk.open().put(desk.job(), timeout=1)

    assert desk.path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(desk: Any) -> None:
    """Something else under the path is told, and left alone."""
    desk.path.write_bytes(b"just some text, longer than a header of SQLite would ever be" * 20)

    with pytest.raises(StoreFormatError, match="not a SQLite database"):
        desk.open().put(desk.job(), timeout=1)


def test_an_empty_file_is_taken(desk: Any) -> None:
    """A file that somebody has only touched becomes the queue."""
    desk.path.touch()

    stored = desk.open().put(desk.job(), timeout=1)

    assert stored.put == "inserted"


def test_many_processes_may_create_the_file_at_once(desk: Any) -> None:
    """Whoever comes first creates the file; the others wait and find it ready."""
    script = (
        "import sys; from dispatchers.sqlite import SQLiteStore, NewJob\n"
        "store = SQLiteStore(sys.argv[1])\n"
        "store.put(NewJob(sys.argv[2], 't', 'q', b''), timeout=20)\n"
        "store.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", script, str(desk.path), str(number)])
        for number in range(6)
    ]

    codes = [process.wait(timeout=60) for process in processes]

    assert codes == [0] * 6
    assert desk.open().counts().ready == 6


def test_a_file_that_is_created_just_now_is_not_taken_for_anothers(desk: Any) -> None:
    """What is read of a file to see whose it is, is read at one instant."""
    desk.path.touch()
    rival = desk.open()

    def create(sql: str) -> None:
        if sql == "PRAGMA user_version":
            connection.set_trace_callback(None)
            with contextlib.suppress(StoreBusyError):
                rival.open(timeout=0.1)

    with closing(sqlite3.connect(desk.path, isolation_level=None)) as connection:
        connection.set_trace_callback(create)
        prepare(connection, str(desk.path))

    assert desk.open().put(desk.job(), timeout=1).put == "inserted"


def test_the_file_is_marked_as_ours(desk: Any, store: SQLiteStore) -> None:
    """The header names the program, for `file` and for others that look."""
    store.open(timeout=1)
    store.close()

    header = desk.path.read_bytes()[:100]

    assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
    assert int.from_bytes(header[60:64], "big") == len(_schema.STEPS)


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_others_can_read_is_said(desk: Any, caplog: Any, *, linked: bool) -> None:
    """A file that was there already keeps its mode, and the log says so once."""
    made = desk.path.with_name("made.db") if linked else desk.path
    made.touch(mode=0o644)
    made.chmod(0o644)
    if linked:
        desk.path.symlink_to(made)

    for _ in range(2):
        store = desk.open()
        store.open(timeout=5)
        store.close()

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "mode 644" in said[0]
    assert "chmod 600" in said[0]


def test_a_check_says_what_cannot_be_written(
    desk: Any, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: a full disk is found by `check`, which leaves nothing in the file."""
    store.check(timeout=5)
    left = store.database.run(
        lambda connection: connection.execute("SELECT count(*) FROM owners").fetchone(),
        deadline=time.monotonic() + 5,
    )

    class Full:
        f_bavail, f_frsize = 3, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(StoreFullError, match="12288 bytes left"):
        store.check(timeout=5)
    assert left == (0,)


def test_the_log_has_to_fit_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied there; without the space for it the log would grow until nothing is left."""
    path = tmp_path / "queue.db"

    class Left:
        f_bavail, f_frsize = 512, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Left)
    check_space(str(path))
    Path(f"{path}-wal").write_bytes(bytes(2**20 + 1))

    with pytest.raises(StoreFullError):
        check_space(str(path))
