"""`dispatchers.worker`: what the base class does, on a table of SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from dispatchers import Backoff, Discard, Reason, Retry, WorkerOptions, current_run, task
from dispatchers._worker.idle import Idle
from dispatchers.delivery import StopFlag
from dispatchers.stores import idempotency
from dispatchers.worker import BaseWorker

from .conftest import GENEROUS, until


@pytest.fixture
def note(seen):
    """A task that notes its argument."""

    @task(name="worker.note")
    def note(x: int) -> None:
        seen(x)

    return note


@pytest.fixture
def held(gate):
    """A task that waits at the gate."""

    @task(name="worker.held")
    def held() -> None:
        gate()

    return held


def test_what_waits_and_what_comes_is_run_and_settled(table, rows, working, note, seen):
    """Each piece once, then it is gone; the worker ends with 0."""
    note.options(dispatcher=table).dispatch(x=1)
    stop = working()
    seen.wait(1)
    note.options(dispatcher=table).dispatch(x=2)
    seen.wait(2)

    assert stop() == 0
    assert (seen.items, rows()) == ([1, 2], [])


def test_a_retry_is_another_attempt_and_not_delivered_yet(table, rows, acme):
    """C8: attempt 2 is due after the back-off; its deliveries count from 1."""

    @task(name="worker.again", max_attempts=2, backoff=Backoff(initial=600))
    def again() -> None:
        raise Retry

    again.options(dispatcher=table).dispatch()
    acme.TableWorker(table, WorkerOptions()).step()

    [(due, attempt, deliveries, token)] = rows("due, attempt, deliveries, token")
    assert (attempt, deliveries, token) == (2, 0, None)
    assert due > time.time() + 60


def test_a_failure_is_dead_lettered_in_the_backend(table, rows, acme):
    """C9: without a store, the letter is the backend's to keep."""

    @task(name="worker.wrong")
    def wrong() -> None:
        raise TypeError("no")

    wrong.options(dispatcher=table).dispatch()
    acme.TableWorker(table, WorkerOptions()).step()

    assert rows("dead, token") == [("permanent", None)]


def test_work_of_no_named_queue_is_dead_lettered(table, rows, acme):
    """A table may keep None for the backend's own queue, as `queue_of` says it; a letter has ''."""

    @task(name="worker.unnamed")
    def unnamed() -> None:
        raise TypeError("no")

    class Unnamed(acme.TableWorker):
        def _take(self, wait):
            work = super()._take(wait)
            return None if work is None else replace(work, queue=None)

    unnamed.options(dispatcher=table).dispatch()
    Unnamed(table, WorkerOptions()).step()

    assert rows("dead") == [("permanent",)]


def test_discarded_work_is_complete(table, rows, acme):
    """Whatever ends as done is settled as done."""

    @task(name="worker.discards")
    def discards() -> None:
        raise Discard

    discards.options(dispatcher=table).dispatch()

    assert acme.TableWorker(table, WorkerOptions()).step().reason is Reason.DISCARDED
    assert rows() == []


# Concurrency and queues.


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_runs_go_at_once(table, rows, working, held, gate, concurrency):
    """`concurrency` runs, and no work is held that does not run."""
    for _ in range(4):
        held.options(dispatcher=table).dispatch()
    working(concurrency=concurrency)
    for _ in range(concurrency):
        gate.arrived()

    assert len([token for (token,) in rows("token") if token]) == concurrency


def test_only_the_named_queues_are_served(table, rows, working, note, seen):
    """Work of another queue stays."""
    note.options(dispatcher=table, queue="other").dispatch(x=1)
    note.options(dispatcher=table, queue="mine").dispatch(x=2)
    working(queues=("mine",))

    seen.wait(1)
    until(lambda: rows("queue") == [("other",)])

    assert seen.items == [2]


# Draining.


@pytest.mark.parametrize("concurrency", [1, 4])
def test_drain_ends_when_nothing_is_due_and_nothing_runs(
    table, rows, working, acme, seen, concurrency
):
    """What a run dispatches is still run, also where the other threads found nothing before."""

    @task(name="worker.chain")
    def chain(left: int) -> None:
        if left:
            chain.options(dispatcher=table).dispatch(left=left - 1)
        seen(left)

    chain.options(dispatcher=table).dispatch(left=20)
    code = acme.TableWorker(table, WorkerOptions(drain=True, concurrency=concurrency)).run()

    assert code == 0
    assert sorted(seen.items) == list(range(21))
    assert rows() == []


def test_a_run_that_goes_on_keeps_drain_from_ending(table, acme, gate, seen):
    """The other threads find nothing again and again, and wait for what it may dispatch."""

    @task(name="worker.late")
    def late(follow: bool) -> None:
        if follow:
            gate()
            late.options(dispatcher=table).dispatch(follow=False)
        seen(follow)

    class Looking(acme.TableWorker):
        poll = 0.001

        def _take(self, wait):
            found = super()._take(wait)
            if found is None:
                looks.append(1)
            return found

    looks: list[int] = []
    late.options(dispatcher=table).dispatch(follow=True)
    worker = Looking(table, WorkerOptions(drain=True, concurrency=2))
    thread = threading.Thread(target=worker.run)
    thread.start()
    gate.arrived()
    before = len(looks)
    until(lambda: len(looks) > before + 5)
    gate.open()
    thread.join(GENEROUS)

    assert seen.items == [True, False]


def test_drain_leaves_what_is_delayed(table, rows, acme, note):
    """Delayed work is not due, however long the worker would wait."""
    note.options(dispatcher=table, delay=timedelta(hours=1)).dispatch(x=1)

    code = acme.TableWorker(table, WorkerOptions(drain=True, concurrency=2)).run()

    assert code == 0
    assert len(rows()) == 1


def test_drain_waits_for_what_a_backend_says_is_left(table, rows, acme, note, seen):
    """A backend may have delayed work waited for, too."""

    class Patient(acme.TableWorker):
        poll = 0.01

        def _is_drained(self):
            return rows() == []

    note.options(dispatcher=table, delay=timedelta(milliseconds=50)).dispatch(x=1)

    assert Patient(table, WorkerOptions(drain=True, concurrency=2)).run() == 0
    assert seen.items == [1]


def test_a_look_that_began_before_the_end_of_a_run_does_not_count():
    """It may have missed what that run has dispatched."""
    idle = Idle(1)
    since = idle.since

    idle.begin()
    idle.end()

    assert not idle.all_are(since)
    assert idle.all_are(idle.since)


def test_a_thread_that_has_work_is_not_idle():
    """It found nothing once, and runs something now."""
    idle = Idle(2)
    with ThreadPoolExecutor(1) as other:
        assert not other.submit(idle.all_are, idle.since).result()
        other.submit(idle.begin).result()

        assert not idle.all_are(idle.since)


# Stopping.


def test_what_runs_is_finished_within_the_grace(table, rows, working, gate):
    """The worker waits for it, takes nothing more, and ends with 0."""

    @task(name="worker.finishes")
    def finishes() -> None:
        gate()
        until(lambda: current_run().should_stop)

    finishes.options(dispatcher=table).dispatch()
    stop = working()
    gate.arrived()
    finishes.options(dispatcher=table).dispatch()
    gate.open()

    assert stop() == 0
    assert rows("deliveries, token") == [(0, None)]


def test_what_runs_beyond_the_grace_is_given_back(table, rows, working, held, gate):
    """C9: it comes again at once, as not delivered; the worker ends with 1."""
    held.options(dispatcher=table).dispatch()
    stop = working(grace=0)
    gate.arrived()

    assert stop() == 1
    assert rows("attempt, deliveries, token") == [(1, 0, None)]


def test_what_was_given_back_is_not_settled_by_its_late_run(table, rows, acme, held, gate):
    """The handler returns after the grace, when another worker has the work: no effect."""
    ended = threading.Event()

    class Tracked(acme.TableWorker):
        calls: list[str] = []

        def _complete(self, work):
            self.calls.append("complete")
            super()._complete(work)

        def _worked(self, work):
            try:
                return super()._worked(work)
            finally:
                ended.set()

    held.options(dispatcher=table).dispatch()
    worker = Tracked(table, WorkerOptions(grace=0))
    running = threading.Thread(target=worker.run)
    running.start()
    gate.arrived()
    worker.stop()
    running.join(GENEROUS)
    assert acme.TableWorker(table, WorkerOptions())._take(0) is not None
    gate.open()

    assert ended.wait(GENEROUS)
    assert Tracked.calls == []
    assert len(rows()) == 1


def test_handlers_see_the_stop_and_hand_back(table, rows, working, gate):
    """C8: giving up as the worker stops is no attempt, and no delivery."""

    @task(name="worker.polite")
    def polite() -> None:
        gate()
        until(lambda: current_run().should_stop)
        raise Retry

    polite.options(dispatcher=table).dispatch()
    stop = working()
    gate.arrived()
    gate.open()

    assert stop() == 0
    assert rows("attempt, deliveries, token") == [(1, 0, None)]


def test_work_that_comes_as_the_worker_stops_is_given_back(table, rows, acme, note, seen):
    """A `_take` that was waiting may still bring some."""
    worker = acme.TableWorker(table, WorkerOptions())
    note.options(dispatcher=table).dispatch(x=1)
    worker.stop()

    assert worker.step() is None
    assert (seen.items, rows("deliveries, token")) == ([], [(0, None)])


def test_takes_that_wait_are_woken(table, working, acme):
    """`_wake` has a backend that waits return at once: the worker does not wait for `poll`."""
    waiting, woken = threading.Event(), StopFlag()

    class Waiting(acme.TableWorker):
        poll = 10 * GENEROUS

        def _take(self, wait):
            waiting.set()
            woken.wait(wait)

        def _wake(self):
            woken.set()

    stop = working(Waiting, grace=10 * GENEROUS)
    assert waiting.wait(GENEROUS)

    assert stop() == 0


SCRIPT = """
import sys
from dispatchers import WorkerOptions
from acme_table import TableDispatcher, TableWorker

class Worker(TableWorker):
    poll = 600.0

    def _take(self, wait):
        found = super()._take(wait)
        print("waits", flush=True)
        return found

print(Worker(TableDispatcher(file=sys.argv[1]), WorkerOptions()).run(), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_worker_that_waits(acme, tmp_path, number):
    """SIGTERM and SIGINT are handled while the main thread waits, and so do the others."""
    folder = str(Path(acme.__file__).parent)
    worker = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "work.db")],
        env={**os.environ, "PYTHONPATH": folder},
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "waits\n"
            worker.send_signal(number)
            out, _ = worker.communicate(timeout=GENEROUS)
        finally:
            worker.kill()

    assert (out, worker.returncode) == ("0\n", 0)


# Leases.


def test_the_lease_of_a_run_is_renewed(table, rows, working, acme, held, gate):
    """Work that takes longer than its lease stays with its worker."""

    class Short(acme.TableWorker):
        lease = 0.3

    held.options(dispatcher=table).dispatch()
    working(Short)
    gate.arrived()
    [(taken,)] = rows("due")
    until(lambda: rows("due")[0][0] > taken + 2 * Short.lease)

    assert rows("deliveries") == [(1,)]


def test_a_renewal_that_hangs_holds_up_no_other(table, rows, working, acme, held, gate):
    """Each lease is renewed apart from the others."""
    hanging, over = threading.Event(), threading.Event()

    class Slow(acme.TableWorker):
        lease = 0.3

        def _renew(self, work):
            if not hanging.is_set():
                hanging.set()
                assert over.wait(GENEROUS)
            return super()._renew(work)

    for _ in range(2):
        held.options(dispatcher=table).dispatch()
    working(Slow, concurrency=2)
    for _ in range(2):
        gate.arrived()
    try:
        assert hanging.wait(GENEROUS)
        latest = max(due for (due,) in rows("due"))
        until(lambda: max(due for (due,) in rows("due")) > latest + 2 * Slow.lease)
    finally:
        over.set()


def test_a_run_whose_lease_is_lost_has_no_effect(table, rows, working, acme, gate, seen):
    """Another worker has it: it is not settled, and the handler sees `should_stop`."""

    class Short(acme.TableWorker):
        lease = 0.3

        def _give_back(self, work, after, deliveries):
            seen("given back")

    @task(name="worker.loses")
    def loses() -> None:
        gate()
        until(lambda: current_run().should_stop)
        seen("lost")

    loses.options(dispatcher=table).dispatch()
    stop = working(Short)
    gate.arrived()
    table.execute("UPDATE work SET token = 'another', due = due + 3600")
    gate.open()
    seen.wait(1)

    assert stop() == 0
    assert seen.items == ["lost"]
    assert rows("token") == [("another",)]


def test_a_renewal_at_the_end_of_a_run_is_no_loss(table, rows, acme, note):
    """One may be under way when the run has ended: the work is settled all the same."""

    class Beating(acme.TableWorker):
        def _settled(self, delivery, outcome):
            delivery.heartbeat.beat()
            super()._settled(delivery, outcome)

    note.options(dispatcher=table).dispatch(x=1)
    Beating(table, WorkerOptions()).step()

    assert rows() == []


def test_work_given_back_after_the_grace_is_renewed_no_more(table, working, acme, gate, seen):
    """Its late handler has lost the lease, also where the backend would renew whatever it is."""

    class Short(acme.TableWorker):
        lease = 0.3

        def _renew(self, work):
            return True

    @task(name="worker.outlives")
    def outlives() -> None:
        run = current_run()
        gate()
        until(lambda: run.lease_lost)
        seen("lost")

    outlives.options(dispatcher=table).dispatch()
    stop = working(Short, grace=0)
    gate.arrived()
    stop()
    gate.open()

    assert seen.wait(1) == ["lost"]


def test_a_lost_claim_gives_the_work_back(acme, tmp_path):
    """C10: the idempotency store's claim is no lease: the message is held, and comes again."""
    table = acme.TableDispatcher(file=str(tmp_path / "work.db"), idempotency="memory")
    store = idempotency("memory")

    @task(name="worker.unclaimed")
    def unclaimed() -> None:
        store._entries.clear()
        until(lambda: current_run().should_stop)

    worker = acme.TableWorker(table, WorkerOptions())
    worker._settings = replace(worker._settings, claim_ttl=0.3)
    unclaimed.options(dispatcher=table).dispatch()

    assert worker.step().reason is Reason.LEASE_LOST
    assert table.execute("SELECT deliveries, token FROM work") == [(0, None)]


# What fails.


def test_a_backend_that_fails_is_asked_again(table, working, acme, note, seen, log):
    """After a pause, and for as long as it takes; the log has it once."""

    class Down(acme.TableWorker):
        failures = 2

        def _take(self, wait):
            if self.failures:
                self.failures -= 1
                raise OSError("down")
            return super()._take(wait)

    note.options(dispatcher=table).dispatch(x=1)
    working(Down)

    assert seen.wait(1) == [1]
    assert [text for _, text in log() if "taken" in text] == ["no work could be taken: OSError"]


def test_a_worker_whose_backend_fails_can_be_stopped(working, acme, monkeypatch):
    """The pause ends with the worker."""
    monkeypatch.setattr("dispatchers._worker.base.PAUSES", (10 * GENEROUS,))
    asked = threading.Event()

    class Down(acme.TableWorker):
        def _take(self, wait):
            asked.set()
            raise OSError("down")

    stop = working(Down, grace=10 * GENEROUS)
    assert asked.wait(GENEROUS)

    assert stop() == 0


class Full:
    """A store of dead letters that takes none."""

    def add(self, letter):
        raise OSError("full")


def test_work_whose_letter_cannot_be_stored_is_given_back(acme, tmp_path, monkeypatch):
    """C9: stored first, settled then; neither an attempt nor a delivery is counted."""
    monkeypatch.setitem(sys.modules, "full_letters", SimpleNamespace(store=Full()))
    file = str(tmp_path / "work.db")
    table = acme.TableDispatcher(file=file, dead_letters="full_letters:store")

    @task(name="worker.dies")
    def dies() -> None:
        raise TypeError("no")

    dies.options(dispatcher=table).dispatch()
    acme.TableWorker(table, WorkerOptions()).step()

    found = table.execute("SELECT attempt, deliveries, token, dead, due > ? FROM work", time.time())
    assert found == [(1, 0, None, None, 1)]


def test_a_letter_is_stored_before_the_work_is_settled(acme, tmp_path, seen):
    """C9: the configured store has it when the backend is told."""
    table = acme.TableDispatcher(file=str(tmp_path / "work.db"), dead_letters="memory")

    class Tracked(acme.TableWorker):
        def _dead_letter(self, work, letter):
            seen(table.letters.get(letter.id))

    @task(name="worker.dies")
    def dies() -> None:
        raise TypeError("no")

    dies.options(dispatcher=table).dispatch()
    Tracked(table, WorkerOptions()).step()

    assert [letter.reason for letter in seen.items] == ["permanent"]


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_exits_ends_its_run_and_not_the_worker(table, rows, acme, note, seen, end):
    """C10: it is delivered again, counted, and dead in the end; other work goes on."""

    @task(name="worker.exits")
    def exits() -> None:
        seen("exits")
        raise end

    exits.options(dispatcher=table).dispatch()
    note.options(dispatcher=table).dispatch(x=1)
    acme.TableWorker(table, WorkerOptions(drain=True)).run()

    assert sorted(map(str, seen.items)) == ["1", *["exits"] * table.options.max_deliveries]
    assert rows("dead") == [("too_many_deliveries",)]


def test_a_call_that_settles_and_fails_leaves_the_work(table, rows, acme, note, log):
    """C9: it is given back, and comes again."""

    class Broken(acme.TableWorker):
        def _complete(self, work):
            raise OSError("down")

    note.options(dispatcher=table).dispatch(x=1)
    Broken(table, WorkerOptions()).step()

    assert rows("deliveries, token") == [(0, None)]


# Early work.


def test_early_work_is_held_back_and_not_run(table, rows, acme, note, seen):
    """It goes back for the time that is left; not a delivery."""

    class Early(acme.TableWorker):
        def _take(self, wait):
            work = super()._take(wait)
            return work and replace(work, early=3600.0)

    note.options(dispatcher=table).dispatch(x=1)

    assert Early(table, WorkerOptions(drain=True)).run() == 0
    assert seen.items == []
    [(due, deliveries)] = rows("due, deliveries")
    assert deliveries == 0
    assert due > time.time() + 60


def test_modules_are_imported_first(table, acme):
    """A module that is not there ends the worker before it takes anything."""
    worker = acme.TableWorker(table, WorkerOptions(modules=("there_is_no_such_module",)))

    with pytest.raises(ModuleNotFoundError):
        worker.run()


def test_a_worker_lacks_nothing_that_is_asked_for():
    """Five methods are an author's; whoever forgets one hears it at once."""
    assert BaseWorker.__abstractmethods__ == {
        "_take",
        "_complete",
        "_retry",
        "_give_back",
        "_dead_letter",
    }
