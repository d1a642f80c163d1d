"""Journal and queue in one file: runs as a worker's child has them, settled as its worker does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers import Outcome, hooks, override, task
from dispatchers._journal.loading import as_seen_by_run, in_place
from dispatchers._worker.run import Run
from dispatchers._worker.runner import RunSettings, run_envelope
from dispatchers._worker.waking import turn_request
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.journals import Commit, EntryKind, JournalError, Refusal, Turn, WakeUp
from dispatchers.sqlite import Finish, Job, SQLiteJournal, SQLiteStore
from dispatchers.sqlite._effects import collecting
from dispatchers.sqlite._leases import release
from dispatchers.sqlite._settled_journal import SettledJournal
from dispatchers.sqlite._worker.settlement import settlement
from dispatchers.workflows import Signal, _turn, workflow
from dispatchers.workflows._cache import live

T = 5.0
LONG = 3600.0
"""Seconds for which no sweep has to help."""

go = Signal("go", int)


@task(name="runs.charge")
def charge(cents: int) -> int:
    """Charge."""
    return cents


@workflow(name="runs.part")
async def part(number: int) -> int:
    """Return a number."""
    return number


@workflow(name="runs.whole")
async def whole(number: int) -> int:
    """Await an execution under a key that others may have."""
    return await part.options(idempotency_key="p").step(number)


@workflow(name="runs.keyed")
async def keyed(number: int) -> int:
    """Charge under a key that others may have."""
    return await charge.options(idempotency_key="c").step(number)


@workflow(name="runs.two")
async def two() -> int:
    """Await a signal, and then a step."""
    return await charge.step(await go.receive())


@workflow(name="runs.sender")
async def sender(what: str) -> int:
    """Tell another execution something."""
    response = go.send(two, "t", 3) if what == "signal" else two.cancel("t")
    assert response.status == "deferred"
    return await charge.step(1)


@workflow(name="runs.asker")
async def asker() -> int:
    """Tell another execution something, and await an answer."""
    go.send(two, "t", 3)
    return await go.receive()


class Runs:
    """A file, whose jobs run one at a time."""

    def __init__(self, path: Path) -> None:
        self.dispatcher = SQLiteDispatcher(path=path, alias="default", breaker=False)
        self.store = SQLiteStore(path)
        self.journal = SQLiteJournal(path)
        self.seen = SettledJournal(self.journal)
        self.owner = self.store.owners.register(timeout=T)

    def exchange(self, *finished: Finish, limit: int = 1) -> list[Job]:
        """Settle, and claim the next."""
        return self.store.exchange(
            finished, owner=self.owner, queues=None, limit=limit, timeout=T
        ).jobs

    def ran(self, job: Job) -> Finish:
        """Run a job; its settlement."""
        with collecting(self.dispatcher._store.path) as collector:
            outcome = run_envelope(
                job.body, attempt=job.attempt, deliveries=job.deliveries, settings=RunSettings()
            )
            return settlement(job, outcome, None)._replace(effects=collector.packed())

    def all(self) -> None:
        """Run all jobs that are due."""
        jobs = self.exchange()
        while jobs:
            jobs = self.exchange(self.ran(jobs[0]))

    def close(self) -> None:
        live.clear()
        for each in (self.dispatcher, self.store, self.journal):
            each.close()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "work.db")
    token = as_seen_by_run.set(lambda _: runs.seen)  # type: ignore[arg-type,return-value]
    with override(default=runs.dispatcher), in_place(runs.journal):
        yield runs
    as_seen_by_run.reset(token)
    runs.close()


@pytest.mark.parametrize("number", [1, 2])
def test_a_child_whose_key_is_known_is_answered_for(runs: Runs, number: int) -> None:
    """D14: of equal and of other arguments; its job is not put, and its end answers others."""
    part.options(idempotency_key="p").dispatch(1).raise_for_error()
    runs.all()

    whole.options(idempotency_key="w").dispatch(number).raise_for_error()
    runs.all()

    record = runs.journal.look("runs.whole/w", timeout=T)
    assert record is not None
    assert (record.status.name, b"conflict" in (record.output or b"")) == ("FAILED", True)
    assert runs.journal.unsent(record.id, timeout=T) == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_step_whose_key_is_that_of_other_work_fails(runs: Runs, number: int) -> None:
    """C10: of equal and of other arguments; that work does not answer."""
    charge.options(idempotency_key="c").dispatch(1).raise_for_error()

    keyed.options(idempotency_key="k").dispatch(number).raise_for_error()
    runs.all()

    record = runs.journal.look("runs.keyed/k", timeout=T)
    assert record is not None
    assert (record.status.name, b"conflict" in (record.output or b"")) == ("FAILED", True)


def _claimed(runs: Runs, meanwhile: Callable[[Job], object]) -> None:
    """Claim what is due by a worker that is killed after something."""
    owner = runs.store.owners.register(timeout=T)
    (job,) = runs.store.exchange([], owner=owner, queues=None, limit=1, timeout=T).jobs
    meanwhile(job)
    with runs.store.database.transaction(timeout=T) as connection:
        assert release(connection, [owner], counted=True) == 1


def test_workers_that_end_before_the_turn_leave_it_innocent(runs: Runs) -> None:
    """K25: they had claimed the message, and not begun what it asks for."""
    part.options(idempotency_key="p").dispatch(1).raise_for_error()

    for _ in range(4):
        _claimed(runs, bool)
    runs.all()

    record = runs.journal.look("runs.part/p", timeout=T)
    assert (record and record.status.name) == "COMPLETED"


def test_turns_that_end_their_workers_are_counted(runs: Runs, monkeypatch: Any) -> None:
    """K25: four of them, and the fifth does not run the code."""
    part.options(idempotency_key="p").dispatch(1).raise_for_error()
    ran: list[Turn] = []

    def killed(taken: Any) -> None:
        ran.append(taken._turn)
        raise Killed

    monkeypatch.setattr(_turn._Taken, "_goes_on", killed)
    monkeypatch.setattr(_turn._Taken, "fail", lambda *_: None)
    for _ in range(4):
        _claimed(runs, runs.ran)
    runs.all()

    record = runs.journal.look("runs.part/p", timeout=T)
    assert record is not None
    assert (record.status.name, len(ran)) == ("STUCK", 4)
    assert "4 workers in a row" in (record.why or "")


class Killed(BaseException):
    """Ends a turn as the death of its process does."""


def test_the_start_whose_turn_did_not_see_all_takes_another(runs: Runs) -> None:
    """T6: a signal that comes in the first turn is read by the job that began the execution."""
    two.options(idempotency_key="t").dispatch().raise_for_error()
    (job,) = runs.exchange()
    finish = runs.ran(job)
    signal = (runs_id := "runs.two/t", "runs.two", EntryKind.SIGNAL, "go", b"3")
    told = runs.journal.deliver(*signal, source="s", at=time.time(), timeout=T)
    assert told.wake is None

    (again,) = runs.exchange(finish)
    assert again.id == job.id
    (step,) = runs.exchange(runs.ran(again))

    assert step.task == "runs.charge"
    assert runs.journal.look(runs_id, timeout=T) is not None


def test_what_leaves_again_after_a_resume_is_known(runs: Runs) -> None:
    """K8, D6: it had left before the end, and was not noted: its id is the same."""
    as_seen_by_run.set(None)
    real, runs.journal.sent = runs.journal.sent, _not_noted  # type: ignore[method-assign]
    asker.options(idempotency_key="a").dispatch().raise_for_error()
    runs.all()
    runs.journal.sent = real  # type: ignore[method-assign]
    runs.journal.terminate("runs.asker/a", "by hand", at=time.time(), timeout=T)
    woken = runs.journal.resume("runs.asker/a", number=None, at=time.time(), timeout=T).wake
    assert woken is not None
    assert [each.command.number for each in runs.journal.unsent("runs.asker/a", timeout=T)] == [1]

    with runs.journal.database.transaction(timeout=T) as connection:
        connection.execute("UPDATE unsent SET next_try = 0")
    runs.dispatcher.dispatch(turn_request(woken)).raise_for_error()
    runs.all()

    assert [each.kind.name for each in runs.journal.entries("runs.two/t", timeout=T)] == ["SIGNAL"]
    assert runs.journal.unsent("runs.asker/a", timeout=T) == []


def _not_noted(*args: Any, **values: Any) -> None:
    raise JournalError("the journal is down")


def test_what_a_hook_dispatches_after_a_superseded_turn_is_put(runs: Runs) -> None:
    """C9: it follows from the run, which was; not from the commit, which was refused."""
    two.options(idempotency_key="t").dispatch().raise_for_error()
    wake = WakeUp("runs.two/t", "runs.two", "default", None, b"{}")
    statuses: list[str] = []

    def audit(run: Run, outcome: Outcome) -> None:
        if run.task.name.startswith("runs.two"):
            statuses.append(charge.dispatch(9).status)

    hooks.after_run(audit)
    try:
        first = runs.ran(*runs.exchange())
        runs.dispatcher.dispatch(turn_request(wake)).raise_for_error()
        second = runs.ran(*runs.exchange())
    finally:
        hooks.remove(audit)

    jobs = runs.exchange(first, second, limit=9)

    assert statuses == ["deferred", "deferred"]
    assert [job.task for job in jobs] == ["runs.charge", "runs.charge"]


@pytest.mark.parametrize(("what", "then"), [("signal", "COMPLETED"), ("cancel", "CANCELLED")])
def test_what_an_execution_tells_another_arrives(runs: Runs, what: str, then: str) -> None:
    """C9: a signal or cancellation is no mere wake-up, which is left out where none is wanted."""
    two.options(idempotency_key="t").dispatch().raise_for_error()
    runs.all()

    sender.options(idempotency_key="s").dispatch(what).raise_for_error()
    runs.all()

    found = [runs.journal.look(name, timeout=T) for name in ("runs.sender/s", "runs.two/t")]
    assert [each and each.status.name for each in found] == ["COMPLETED", then]


def test_a_turn_that_was_read_before_a_resume_has_no_effect(runs: Runs) -> None:
    """D9: what it found out is of entries that are gone."""
    two.options(idempotency_key="t").dispatch().raise_for_error()
    runs.all()
    go.send(two, "t", 3).raise_for_error()
    (job,) = runs.exchange()
    finish = runs.ran(job)
    runs.journal.terminate("runs.two/t", "by hand", at=time.time(), timeout=T)
    assert runs.journal.resume("runs.two/t", number=None, at=time.time(), timeout=T).first

    runs.exchange(finish, limit=0)

    kinds = [each.kind.name for each in runs.journal.entries("runs.two/t", timeout=T)]
    assert kinds == ["SIGNAL"]


def test_a_turn_is_held_while_it_is_being_taken(runs: Runs) -> None:
    """D9: a heartbeat in that moment does not take the lease for lost."""
    two.options(idempotency_key="t").dispatch().raise_for_error()
    runs.all()
    real: Callable[..., Any] = runs.journal.take_and_commit
    renewed: list[bool] = []

    def slow(turn: Turn, *args: Any, **values: Any) -> Any:
        renewed.append(runs.seen.renew(turn, timeout=T))
        return real(turn, *args, **values)

    runs.journal.take_and_commit = slow  # type: ignore[method-assign]
    with collecting(runs.dispatcher._store.path):
        turn = runs.seen.take("runs.two/t", "o", wakeup="w", after=0, timeout=T)
        assert not isinstance(turn, Refusal)
        runs.seen.commit(turn, Commit(time.time(), 0, keep=True), timeout=T)

    assert renewed == [True]
    assert runs.seen.renew(turn, timeout=T)
