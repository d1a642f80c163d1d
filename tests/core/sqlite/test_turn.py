"""Among processes that wait for one file, who has waited longest goes first."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers.sqlite import NewJob, SQLiteStore
from dispatchers.sqlite._fair_lock import FairLock
from dispatchers.sqlite._lock_wait import Contention


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "queue.db")


@pytest.fixture
def elsewhere(path: str) -> Iterator[Callable[[float], None]]:
    """Lets another process wait for so many seconds, as it says; it stays so until the end."""
    held: list[tuple[int, int]] = []

    def wait(age: float) -> None:
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            FairLock(path).comes(age)
            os.write(ready[1], b"!")
            os.close(go[1])
            os.read(go[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        for end in (*ready, go[0]):
            os.close(end)
        held.append((pid, go[1]))

    yield wait
    for pid, end in held:
        os.close(end)
        os.waitpid(pid, 0)


@pytest.fixture
def turn(path: str) -> Iterator[FairLock]:
    turn = FairLock(path)
    yield turn
    turn.close()


def test_a_newcomer_lets_those_that_wait_go_first(turn: FairLock, elsewhere: Any) -> None:
    """While somebody waits, a process that has not waited does not try."""
    elsewhere(0.3)

    come = [turn.comes(age) for age in (0.0, 0.15, 0.25, 1.0)]

    assert come == [False, False, True, True]


def test_nobody_yields_to_one_that_has_hardly_waited(turn: FairLock, elsewhere: Any) -> None:
    """Those that have waited about as long compete."""
    elsewhere(0.001)

    assert turn.comes(0.0)


def test_nobody_waits_where_nobody_has_waited(turn: FairLock, path: str) -> None:
    """Looking for others makes no file; waiting does, for its owner only."""
    before = turn.others_wait(), Path(f"{path}-turn").exists()
    turn.comes(0.1)
    after = turn.others_wait(), stat.S_IMODE(Path(f"{path}-turn").stat().st_mode)

    assert before == (False, False)
    assert after == (False, 0o600)


def test_who_has_its_turn_is_not_waited_for(turn: FairLock, path: str, in_child: Any) -> None:
    """What was held is given back when the wait is over."""
    turn.comes(0.3)

    def waits() -> None:
        assert not FairLock(path).comes(0.0)

    def waits_not() -> None:
        assert FairLock(path).comes(0.0)

    while_waiting = in_child(waits)
    turn.over()

    assert (while_waiting, in_child(waits_not)) == (0, 0)


def test_who_dies_is_not_waited_for(turn: FairLock, path: str, in_child: Any) -> None:
    """The system gives back what a process held that was killed."""
    in_child(lambda: FairLock(path).comes(9.0))

    assert turn.comes(0.0)


def test_where_the_file_cannot_be_made_everybody_tries(tmp_path: Path) -> None:
    """Fairness is a courtesy: without it, the queue works as well."""
    turn = FairLock(str(tmp_path / "missing" / "queue.db"))

    assert turn.comes(0.0)
    assert turn.comes(5.0)
    assert not turn.others_wait()


def test_a_process_that_is_never_disturbed_looks_for_others(path: str, elsewhere: Any) -> None:
    """Whoever writes without a pause sees that somebody waits, although nobody is in its way."""
    crowd = Contention(path)
    elsewhere(0.3)

    assert crowd.waits
    crowd.turn.close()


def test_who_waits_and_does_not_write_starves_nobody(
    tmp_path: Path, path: str, elsewhere: Any
) -> None:
    """C2: a process that was stopped while it waited (SIGSTOP) keeps its turn and costs little."""
    store = SQLiteStore(path)
    store.open(timeout=5)
    elsewhere(60.0)

    put = [store.put(NewJob(f"{n}", "t", "q", b""), timeout=2.0).put for n in range(50)]
    store.close()

    assert put == ["inserted"] * 50
