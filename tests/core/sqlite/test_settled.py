"""Journal and queue in one file: what a run found out is recorded as its job is settled."""

from __future__ import annotations

import json
import logging
import marshal
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dispatchers import DispatchRequest, override, task
from dispatchers._models.envelope import encode
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.journals import (
    Answer,
    Command,
    Commit,
    Committed,
    EntryKind,
    Journal,
    Refusal,
    Start,
    Status,
    Turn,
    WakeUp,
    rules,
)
from dispatchers.sqlite import Finish, Job, SQLiteJournal, SQLiteStore
from dispatchers.sqlite._effects import Effects, collecting
from dispatchers.sqlite._settled_journal import SettledJournal
from dispatchers.workflows import _turn, workflow
from dispatchers.workflows._cache import LiveCache
from dispatchers.workflows._turn import take_turn

T = 5.0
WORKFLOW = "shop.checkout"
ID = "shop.checkout/7"


def start(execution: str = ID, **values: Any) -> Start:
    return Start(execution, WORKFLOW, 1, "default", None, b"{}", b"{}", time.time(), **values)


def step(number: int) -> Command:
    return Command(number, EntryKind.STEP, "shop.charge", b"d", b"{}", "default")


def done(body: bytes = b"1") -> Answer:
    return Answer(EntryKind.DONE, body, time.time())


def turn_request(execution: str = ID) -> DispatchRequest:
    return DispatchRequest(task=f"{WORKFLOW}/turn", payload={"execution": execution})


class Place:
    """One file with a queue and a journal, and the worker's part in this process."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.dispatcher = SQLiteDispatcher(path=path, alias="default")
        self.store = SQLiteStore(path)
        self.journal = SQLiteJournal(path)
        self.seen = SettledJournal(self.journal)
        self.owner = self.store.owners.register(timeout=T)

    def jobs(self, *finished: Finish, limit: int = 10) -> list[Job]:
        """Settle, and claim the next."""
        exchange = self.store.exchange(
            finished, owner=self.owner, queues=None, limit=limit, timeout=T
        )
        assert not exchange.lost
        return exchange.jobs

    def job(self, request: DispatchRequest) -> Job:
        """Put one job, and claim it."""
        self.dispatcher.dispatch(request).raise_for_error()
        (job,) = self.jobs()
        return job

    def begun(self, execution: str = ID, **values: Any) -> None:
        assert self.journal.begin(start(execution, **values), timeout=T).first

    def peeked(self, execution: str = ID, owner: str = "o") -> Turn:
        turn = self.seen.take(execution, owner, wakeup="w", after=0, timeout=T)
        assert isinstance(turn, Turn)
        return turn

    def turned(self, *commands: Command, **values: Any) -> bytes:
        """A turn as the child takes it; returns its effects."""
        with collecting(self.path) as collector:
            turn = self.peeked(values.pop("execution", ID))
            seen = turn.record.head
            commit = Commit(time.time(), seen, commands, **values)
            assert isinstance(self.seen.commit(turn, commit, timeout=T), Committed)
            for command in commands:
                headers = {"dispatchers-step": f"{turn.record.id}/{command.number}"}
                name = f"step-{command.number}"
                request = DispatchRequest(task="shop.charge", id=name, headers=headers)
                assert self.dispatcher.dispatch(request).status == "deferred"
            self.seen.sent(turn.record.id, [c.number for c in commands], timeout=T)
            return collector.packed()

    def answered(self, number: int, execution: str = ID) -> bytes:
        """A step as the child runs it; returns its effects."""
        with collecting(self.path) as collector:
            assert not self.seen.is_answered(execution, number, timeout=T)
            answered = self.seen.answer(execution, number, done(), timeout=T)
            assert isinstance(answered.wake, WakeUp)
            assert self.dispatcher.dispatch(turn_request(execution)).ok
            return collector.packed()

    def look(self, execution: str = ID) -> Any:
        return self.journal.look(execution, timeout=T)

    def kinds(self, execution: str = ID) -> list[str]:
        return [each.kind.name for each in self.journal.entries(execution, timeout=T)]

    def close(self) -> None:
        self.dispatcher.close()
        self.store.close()
        self.journal.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "work.db")
    with override(default=place.dispatcher):
        yield place
    place.close()


def settled(job: Job, effects: bytes) -> Finish:
    return Finish.done(job)._replace(effects=effects)


def commits(place: Place, act: Callable[[], object]) -> int:
    """How many transactions an act commits, over all connections of this process."""
    counted: list[str] = []
    stores = (place.store, place.journal, place.dispatcher._store)
    for each in stores:
        each.database._slot.connection.set_trace_callback(counted.append)
    act()
    for each in stores:
        each.database._slot.connection.set_trace_callback(None)
    return counted.count("COMMIT") + sum(
        text.lstrip().startswith("INSERT") for text in counted if "BEGIN IMMEDIATE" not in counted
    )


def test_a_sequential_step_costs_two_commits(place: Place) -> None:
    """The turn, its step's job and the settlement are one commit; so is the step's answer."""
    place.begun()
    turn = place.job(turn_request())
    place.look()

    def work() -> None:
        (job,) = place.jobs(settled(turn, place.turned(step(1))))
        (again,) = place.jobs(settled(job, place.answered(1)))
        assert again.task == f"{WORKFLOW}/turn"

    assert commits(place, work) == 2
    assert place.kinds() == ["STEP", "DONE"]
    assert place.journal.unsent(ID, timeout=T) == []


def test_nothing_is_there_before_the_job_is_settled(place: Place) -> None:
    """D10: what a run found out is recorded with its settlement, or not at all."""
    place.begun()
    place.job(turn_request())

    place.turned(step(1))

    assert place.kinds() == []
    assert place.store.counts().ready == 0


def test_a_turn_that_is_superseded_has_no_effect(place: Place) -> None:
    """D9: of two turns that read the same, the first that is settled counts."""
    place.begun()
    place.dispatcher.dispatch_many([turn_request(), turn_request()]).raise_for_error()
    one, two = place.jobs()
    first, second = place.turned(step(1)), place.turned(step(1))

    jobs = place.jobs(settled(one, first), settled(two, second))

    assert [job.id for job in jobs] == ["step-1"]
    assert place.kinds() == ["STEP"]
    assert place.look().fence == 1


def test_a_turn_that_did_not_see_all_is_repeated(place: Place) -> None:
    """T6: an entry that arrives during a turn is read by the same job, at once."""
    place.begun()
    turn = place.job(turn_request())
    (charge,) = place.jobs(settled(turn, place.turned(step(1))))
    (again,) = place.jobs(settled(charge, place.answered(1)))
    effects = place.turned(step(2))
    late = time.time()
    place.journal.deliver(ID, WORKFLOW, EntryKind.SIGNAL, "x", b"1", source="s", at=late, timeout=T)

    jobs = {job.id: job for job in place.jobs(settled(again, effects))}

    assert set(jobs) == {again.id, "step-2"}
    assert jobs[again.id].deliveries == 1
    assert (place.look().seen, place.look().head) == (2, 4)


def test_a_superseded_turn_is_repeated_if_anything_is_unread(place: Place) -> None:
    """A wake-up whose turn was dropped is not lost with it."""
    place.begun()
    job = place.job(turn_request())
    effects = place.turned(step(1))
    other = place.journal.take(ID, "other", wakeup="x", after=0, timeout=T)
    assert isinstance(other, Turn)
    place.journal.release(other, timeout=T)
    at = time.time()
    place.journal.deliver(ID, WORKFLOW, EntryKind.SIGNAL, "x", b"1", source="s", at=at, timeout=T)

    (again,) = place.jobs(settled(job, effects))

    assert again.id == job.id
    assert place.kinds() == ["SIGNAL"]


@task(name="settled.charge")
def charge(cents: int) -> int:
    """Charge."""
    return cents


@workflow(name="settled.twice")
async def twice() -> int:
    """Charge twice, one after the other."""
    return await charge.step(1) + await charge.step(2)


class Child:
    """A worker's child of its own: its journal, and the live code that it keeps."""

    def __init__(self, place: Place) -> None:
        self.path = place.path
        self.journal = SQLiteJournal(place.path)
        self.seen = SettledJournal(self.journal)
        self.cache = LiveCache()

    def turned(self, execution: str) -> bytes:
        """Take a turn; returns its effects."""
        with collecting(self.path) as collector:
            self.recorded(execution)
            return collector.packed()

    def recorded(self, execution: str) -> None:
        """Take a turn, and record it here unless it is collected."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_turn, "live", self.cache)
            take_turn(cast("Journal", self.seen), twice.versions, execution, "w")


@pytest.mark.parametrize("way", ["read", "taken"])
def test_live_code_of_a_superseded_turn_is_not_gone_on_with(place: Place, way: str) -> None:
    """Of two turns with one fence, the code of that which was not recorded has asked for more."""
    name = "settled.twice/1"
    envelope = encode(DispatchRequest(task="settled.twice"))
    begun = Start(name, "settled.twice", 1, "default", None, b"{}", envelope, time.time())
    assert place.journal.begin(begun, timeout=T).first
    place.dispatcher.dispatch_many([turn_request(name) for _ in range(4)]).raise_for_error()
    first, early, late, last = place.jobs()
    one, other = Child(place), Child(place)
    place.jobs(settled(first, other.turned(name)), limit=0)
    seen_less = one.turned(name)
    assert place.journal.answer(name, 1, done(), timeout=T).first
    asked_for_more = other.turned(name)
    assert b"settled.charge" in asked_for_more
    place.jobs(settled(early, seen_less), settled(late, asked_for_more), limit=0)
    assert place.kinds(name) == ["STEP", "DONE"]

    if way == "read":
        place.jobs(settled(last, other.turned(name)), limit=0)
    else:
        other.recorded(name)

    assert place.kinds(name) == ["STEP", "DONE", "STEP"]
    one.journal.close()
    other.journal.close()


def test_effects_of_a_job_that_is_others_do_not_count(place: Place) -> None:
    """A worker that lost its lease records nothing."""
    place.begun()
    job = place.job(turn_request())
    effects = place.turned(step(1))
    place.store.owners.leave(place.owner, timeout=T)

    exchange = place.store.exchange(
        [settled(job, effects)], owner=place.owner, queues=None, limit=0, timeout=T
    )

    assert [each.job.id for each in exchange.lost] == [job.id]
    assert place.kinds() == []


def test_effects_that_are_refused_undo_no_others(place: Place) -> None:
    """One commit that the file refuses is undone alone, and its job comes again."""
    place.begun("shop.checkout/a")
    place.begun("shop.checkout/b")
    place.dispatcher.dispatch_many([turn_request(), turn_request()]).raise_for_error()
    one, two = place.jobs()
    good = place.turned(step(1), execution="shop.checkout/a")
    bad = place.turned(step(1), execution="shop.checkout/b")
    with place.journal.database.transaction(timeout=T) as connection:
        connection.execute("INSERT INTO awaited VALUES ('shop.checkout/b', 1, NULL)")

    jobs = place.jobs(settled(one, bad), settled(two, good))

    assert [job.id for job in jobs] == ["step-1"]
    assert place.kinds("shop.checkout/a") == ["STEP"]
    assert place.kinds("shop.checkout/b") == []
    assert place.look("shop.checkout/b").fence == 0
    assert place.store.counts().delayed == 1


def test_effects_that_cannot_be_read_hold_up_no_others(place: Place) -> None:
    """C11: a package that was replaced under its worker starts children of another version."""
    place.begun("shop.checkout/a")
    place.begun("shop.checkout/b")
    place.dispatcher.dispatch_many([turn_request(), turn_request()]).raise_for_error()
    one, two = place.jobs()
    good = place.turned(step(1), execution="shop.checkout/a")

    jobs = place.jobs(settled(one, marshal.dumps(("of", "others"))), settled(two, good))

    assert [job.id for job in jobs] == ["step-1"]
    assert place.store.counts().delayed == 1


def test_what_leaves_with_its_commit_is_never_unsent(place: Place) -> None:
    """D6: commands are unsent until their jobs are put, which is in the same transaction here."""
    place.begun()
    turn = place.job(turn_request())
    statements: list[str] = []
    with place.store.database.transaction(timeout=T) as connection:
        connection.set_trace_callback(statements.append)

    jobs = place.jobs(settled(turn, place.turned(step(1))))

    connection.set_trace_callback(None)
    assert [job.id for job in jobs] == ["step-1"]
    assert place.journal.unsent(ID, timeout=T) == []
    assert not [sql for sql in statements if "unsent" in sql]
    assert sum("UPDATE executions" in sql for sql in statements) == 1


def test_of_two_answers_the_first_stands(place: Place) -> None:
    """D3: an answer that comes second is dropped; what is unread is woken for all the same."""
    place.begun()
    turn = place.job(turn_request())
    (charge,) = place.jobs(settled(turn, place.turned(step(1))))
    effects = place.answered(1)
    place.journal.answer(ID, 1, done(b"other"), timeout=T)

    jobs = place.jobs(settled(charge, effects))

    assert [job.task for job in jobs] == [f"{WORKFLOW}/turn"]
    (_, answer) = place.journal.entries(ID, timeout=T)
    assert answer.body == b"other"


def test_an_answer_of_what_was_forgotten_meanwhile_is_dropped(place: Place, caplog: Any) -> None:
    """D3: its step ran on while its number was issued anew, and its effects come late."""
    place.begun()
    turn = place.job(turn_request())
    (charge,) = place.jobs(settled(turn, place.turned(step(1))))
    with collecting(place.path) as collector:
        former = rules.request_id(ID, 1)
        assert not place.seen.is_answered(ID, 1, source=former, timeout=T)
        assert place.seen.answer(ID, 1, done()._replace(source=former), timeout=T).first
        effects = collector.packed()
    place.journal.terminate(ID, "by hand", at=time.time(), timeout=T)
    place.journal.resume(ID, number=None, at=time.time(), timeout=T)
    request = DispatchRequest(task="shop.charge", id=rules.request_id(ID, 1, 1))
    again = step(1)._replace(body=encode(request))
    place.jobs(settled(place.job(turn_request()), place.turned(again)), limit=0)

    with caplog.at_level(logging.INFO):
        place.jobs(settled(charge, effects))

    assert place.kinds() == ["STEP"]
    assert f"an answer of step {ID}/1 does not count" in caplog.text
    assert place.seen.is_answered(ID, 1, source=former, timeout=T)


def test_many_answers_put_one_turn(place: Place) -> None:
    """Wake-ups are not doubled: the first answer of a batch wakes for all."""
    place.begun()
    turn = place.job(turn_request())
    charges = place.jobs(settled(turn, place.turned(*map(step, range(1, 6)))))

    answers = [settled(job, place.answered(n)) for n, job in enumerate(charges, 1)]
    jobs = place.jobs(*answers)

    assert [job.task for job in jobs] == [f"{WORKFLOW}/turn"]
    assert place.kinds()[5:] == ["DONE"] * 5


def test_the_end_of_a_child_wakes_its_parent(place: Place) -> None:
    """D14: the answer to the parent and its turn come with the end of the child."""
    place.begun()
    turn = place.job(turn_request())
    (charge,) = place.jobs(settled(turn, place.turned(step(1))))
    place.begun("shop.pay/1", parent=ID, parent_number=1)
    with collecting(place.path) as collector:
        taken = place.peeked("shop.pay/1")
        commit = Commit(time.time(), 0, status=Status.COMPLETED, output=b"2")
        committed = place.seen.commit(taken, commit, timeout=T)
        assert isinstance(committed, Committed)
        assert committed.wake is not None
        place.dispatcher.dispatch(turn_request(committed.wake.execution)).raise_for_error()
        effects = collector.packed()

    (woken,) = place.jobs(settled(charge, effects))

    assert json.loads(woken.body)["payload"] == {"execution": ID}
    assert place.kinds() == ["STEP", "DONE"]


def test_a_local_step_is_recorded_at_once(place: Place) -> None:
    """D3: what ran in the turn is recorded before anything follows, in one commit."""
    place.begun()
    place.job(turn_request())
    place.look()
    local = Command(1, EntryKind.LOCAL, "rate", b"d")

    with collecting(place.path) as collector:
        turn = place.peeked()
        commit = Commit(time.time(), 0, [local], [(1, done())])
        found: list[Any] = []
        count = commits(place, lambda: found.append(place.seen.commit(turn, commit, timeout=T)))
        assert not collector.packed()

    assert count == 1
    assert place.kinds() == ["LOCAL", "DONE"]
    assert found[0].kept
    assert place.seen.renew(turn, timeout=T)
    more = Commit(time.time(), 2)
    assert isinstance(place.seen.commit(turn, more, timeout=T), Committed)


def test_a_turn_held_by_another_process_is_refused(place: Place) -> None:
    """A turn that was taken, by another worker or for local steps, is respected."""
    place.begun()
    assert isinstance(place.journal.take(ID, "other", wakeup="x", after=0, timeout=T), Turn)

    with collecting(place.path):
        found = place.seen.take(ID, "o", wakeup="w", after=0, timeout=T)

    assert found is Refusal.HELD


def test_work_for_another_dispatcher_leaves_after_the_commit(place: Place, tmp_path: Path) -> None:
    """D10: what cannot be put in the same transaction is recorded first."""
    place.begun()
    place.job(turn_request())
    elsewhere = SQLiteDispatcher(path=tmp_path / "other.db", alias="other")
    command = step(1)._replace(route="other")

    with override(default=place.dispatcher, other=elsewhere), collecting(place.path) as collector:
        commit = Commit(time.time(), 0, [command])
        place.seen.commit(place.peeked(), commit, timeout=T)
        assert elsewhere.dispatch(DispatchRequest(task="shop.charge")).status == "accepted"
        assert not collector.packed()

    assert [each.command.number for each in place.journal.unsent(ID, timeout=T)] == [1]
    elsewhere.close()


def test_a_handlers_own_dispatch_is_not_held(place: Place) -> None:
    """C3: only what follows from a change of the journal waits for the settlement."""
    with collecting(place.path) as collector:
        response = place.dispatcher.dispatch(DispatchRequest(task="shop.mail"))

    assert response.status == "accepted"
    assert collector.packed() == b""


def test_effects_travel_as_they_are(place: Place) -> None:
    """Packing changes nothing, whatever is in them."""
    timer = Command(2, EntryKind.TIMER, repr(time.time()), b"\x00\xff")
    commit = Commit(
        time.time(), 3, [step(1), timer], [(1, done(b"\x01"))], status=Status.FAILED,
        output=b"\xff", state=b"{}", why="ünd", wake_at=1.5, restart=b"x", unread=(1, 2),
    )  # fmt: skip

    for change in (commit, done(b"\x00")):
        effects = Effects(ID, 4, "o", change, (1,), [])
        assert Effects.unpacked(effects.packed()) == effects


@pytest.mark.parametrize("statement", range(14))
def test_a_worker_that_dies_within_the_settlement_leaves_all_or_nothing(
    place: Place, in_child: Callable[[Callable[[], object]], int], statement: int
) -> None:
    """K8, K12: killed at any statement, the job is there with nothing, or gone with everything."""
    place.begun()
    job = place.job(turn_request())
    effects = place.turned(step(1))
    count = iter(range(1000))

    def die() -> None:
        store = SQLiteStore(place.path)
        store.open(timeout=T)

        def hook(sql: str) -> None:
            if next(count) == statement:
                os._exit(9)

        store.database._slot.connection.set_trace_callback(hook)
        finish = [settled(job, effects)]
        store.exchange(finish, owner=place.owner, queues=None, limit=0, timeout=T)

    code = in_child(die)

    counts = place.store.counts()
    nothing = (place.kinds(), counts.running, counts.ready) == ([], 1, 0)
    everything = (place.kinds(), counts.running, counts.ready) == (["STEP"], 0, 1)
    assert nothing or everything
    assert code == 9 or everything
