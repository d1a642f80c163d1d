"""Points at which a worker's process is killed: imported by the workers of the kill tests alone.

A test plans by a file `<key>.<point>` in the folder `KILL_PLANS`. The first process that comes to
the point with the execution of that key takes the file away, and does what it says.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dispatchers._journal.errors import JournalError
from dispatchers._journal.values import LEAVING, Answer, Commit
from dispatchers._worker import steps
from dispatchers.sqlite import SQLiteJournal, SQLiteStore, _journal_effects
from dispatchers.sqlite._effects import Effects
from dispatchers.sqlite._errors import StoreError
from dispatchers.workflows import _cache, _hand_over, _sweep, _tasks, _turn

PLANS = Path(os.environ["KILL_PLANS"])


def point(name: str, execution: str) -> str:
    """Pass a point; returns the word of the plan if it is none that ends or stops processes."""
    file = PLANS / f"{execution.rpartition('/')[2]}.{name}"
    try:
        taken = file.rename(file.with_suffix(f".{os.getpid()}.taken"))
    except FileNotFoundError:
        return ""
    word = taken.read_text()
    sign = {"stop": signal.SIGSTOP}.get(word, signal.SIGKILL)
    if word in ("worker", "stop"):
        os.kill(int((PLANS / "worker.pid").read_text()), sign)
    if word in ("process", "worker", "stop"):
        os.kill(os.getpid(), sign)
    return word


# Where calls are wrapped.


def before_and_after(owner: Any, name: str, told: Callable[..., tuple[str, str]]) -> None:
    """Make points of a call; `told` says from its arguments which, and of which execution."""
    real = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        what, execution = told(*args, **kwargs)
        if point(f"{what} before", execution) == "lose":
            return True
        result = real(*args, **kwargs)
        if point(f"{what} after", execution) == "unknown":
            _lose_the_answer(owner)
        return result

    setattr(owner, name, call)


def _lose_the_answer(owner: object) -> None:
    kind = StoreError if owner is SQLiteStore else JournalError
    raise kind("the connection was lost", maybe_written=True)


def kind_of(commit: Commit) -> str:
    """Tell what a commit is about: a local step, commands that leave, an end, or neither."""
    if commit.answers:
        return "local"
    if any(command.kind in LEAVING for command in commit.commands):
        return "leave"
    return "end" if commit.status.is_end else "park"


def _of_effects(_: object, packed: bytes, *rest: object) -> tuple[str, str]:
    found = Effects.unpacked(packed)
    change = found.change
    return "apply " + ("answer" if isinstance(change, Answer) else kind_of(change)), found.execution


def _of_jobs(_: object, jobs: Sequence[Any], **rest: object) -> tuple[str, str]:
    found = re.search(rb'"dispatchers-step":"([^"]+)/\d+"', b"".join(job.body for job in jobs))
    return "put", found[1].decode() if found else ""


def _named(what: str, place: int) -> Callable[..., tuple[str, str]]:
    return lambda *args, **kwargs: (what, str(args[place]))


def _lose_responses() -> None:
    """Take a command that has left for one that may have."""
    real = _hand_over._has_left

    def has_left(journal: Any, record: Any, command: Any, response: Any) -> bool:
        return point("left", record.id) != "unknown" and real(journal, record, command, response)

    _hand_over._has_left = has_left


def _wrap_all() -> None:
    _lose_responses()
    wrap = partial(before_and_after, SQLiteJournal)
    wrap("begin", lambda _, start, **rest: ("begin", start.execution))
    wrap("take", _named("take", 1))
    wrap("peek", _named("take", 1))
    wrap("sent", _named("sent", 1))
    wrap("answer", _named("answer", 1))
    wrap("commit", lambda _, turn, c, **rest: (kind_of(c), turn.record.id))
    wrap("take_and_commit", lambda _, turn, wakeup, c, **rest: (kind_of(c), turn.record.id))
    before_and_after(SQLiteStore, "put_many", _of_jobs)
    before_and_after(_journal_effects, "apply_effects", _of_effects)
    before_and_after(_turn, "hand_over", lambda _, record, *rest: ("hand over", record.id))
    before_and_after(_turn, "wake_later", lambda record, at: ("wake later", record.id))
    before_and_after(steps, "woken", lambda wake: ("wake", wake.execution if wake else ""))


def _hasten() -> None:
    """Sweep and try again often, so that the tests need not wait long."""
    _sweep.sweeper.interval = 0.5
    _hand_over.FIRST_PAUSE = 0.2
    if lease := float(os.environ.get("KILL_LEASE", "0")):
        assert SQLiteJournal.__init__.__kwdefaults__ is not None
        SQLiteJournal.__init__.__kwdefaults__["lease"] = lease
        _turn.LEASE = lease
    if timeout := float(os.environ.get("KILL_TIMEOUT", "0")):
        for module in (_turn, _tasks, steps):
            module.TIMEOUT = timeout  # type: ignore[attr-defined]
        for each in (_tasks, steps):
            each.UNAVAILABLE_DELAY = timeout  # type: ignore[attr-defined]
    if os.environ.get("KILL_CACHE"):
        _cache.live._executions = 0


_wrap_all()
_hasten()
