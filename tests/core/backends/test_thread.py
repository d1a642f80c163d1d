"""`thread`: handing over, running, retrying and the bounds of the queue."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from uuid import UUID, uuid4

import pytest

from dispatchers import Backoff, Discard, DispatchStatus, ErrorCategory, Retry, current_run, task
from dispatchers._worker import settlement
from dispatchers.backends import _thread_pool as _pool
from dispatchers.backends.thread import ThreadDispatcher

from .conftest import GENEROUS, until


@pytest.fixture
def thread(made):
    """Makes thread dispatchers."""
    return lambda **options: made(ThreadDispatcher(**options))


@pytest.fixture
def note(seen):
    """A task that notes its argument."""

    @task(name="thread.note")
    def note(x: int) -> None:
        seen(x)

    return note


@pytest.fixture
def block(gate):
    """A task that waits at the gate."""

    @task(name="thread.block")
    def block(n: int = 0) -> None:
        gate()

    return block


def test_accepts_and_runs_on_another_thread(thread, seen):
    """C3: the work is accepted, confirmed by the queue, not durable, and runs elsewhere."""

    @task(name="thread.where")
    def where() -> None:
        seen(threading.current_thread())

    response = where.options(dispatcher=thread()).dispatch()

    assert response.status is DispatchStatus.ACCEPTED
    assert (response.confirmed, response.durable, response.is_sync) == (True, False, False)
    assert response.task_id == response.request_id
    assert seen.wait(1)[0] is not threading.current_thread()


def test_values_arrive_as_they_were(thread, seen):
    """C5: values go through the envelope and keep type and value."""

    @task(name="thread.typed")
    def typed(a: UUID, b: datetime, c: Decimal, d: bytes) -> None:
        seen((a, b, c, d))

    values = (uuid4(), datetime(1960, 1, 1, tzinfo=UTC), Decimal("1.10"), b"\x00\xff")
    typed.options(dispatcher=thread()).dispatch(*values)

    assert seen.wait(1) == [values]


def test_async_tasks_run_to_their_end(thread, seen):
    """An async task runs on an event loop of its own."""

    @task(name="thread.async")
    async def work(x: int) -> None:
        await asyncio.sleep(0)
        seen(x)

    work.options(dispatcher=thread()).dispatch(x=1)

    assert seen.wait(1) == [1]


def test_adispatch_needs_no_thread_to_hand_over(thread, note, seen):
    """C8: handing over on an event loop is what it is in a thread."""
    dispatcher = thread()

    one = asyncio.run(dispatcher.adispatch(note.request(x=1)))
    many = asyncio.run(dispatcher.adispatch_many([note.request(x=2), note.request(x=3)]))

    assert one.status is DispatchStatus.ACCEPTED
    assert many.ok
    assert sorted(seen.wait(3)) == [1, 2, 3]


def test_starts_threads_when_there_is_work(thread, block, gate):
    """No thread before the first work, and never more than `workers`."""
    dispatcher = thread(workers=2)

    before = len(dispatcher._pool._threads)
    for n in range(5):
        block.options(dispatcher=dispatcher).dispatch(n)
    gate.arrived()
    gate.arrived()

    assert before == 0
    assert len(dispatcher._pool._threads) == 2


def test_idle_threads_end(thread, note, seen, monkeypatch):
    """A thread without work ends after a while, and the next work starts another."""
    monkeypatch.setattr(_pool, "IDLE", 0.01)
    dispatcher = thread(workers=1)

    note.options(dispatcher=dispatcher).dispatch(x=1)
    seen.wait(1)
    for each in tuple(dispatcher._pool._threads):
        each.join(GENEROUS)
    after = len(dispatcher._pool._threads)
    note.options(dispatcher=dispatcher).dispatch(x=2)

    assert after == 0
    assert seen.wait(2) == [1, 2]


def test_full_queue_is_capacity(thread, block, gate):
    """C4: a full queue refuses with `capacity`, and repeating may help; what runs has left it."""
    dispatcher = thread(workers=1, capacity=2)
    work = block.options(dispatcher=dispatcher)

    work.dispatch(0)
    gate.arrived()
    taken = [work.dispatch(n).status for n in (1, 2)]
    refused = work.dispatch(3)

    assert taken == [DispatchStatus.ACCEPTED] * 2
    assert refused.status is DispatchStatus.REJECTED
    assert refused.error.category is ErrorCategory.CAPACITY
    assert refused.error.retryable


def test_a_retry_comes_back_into_a_full_queue(thread, seen, gate):
    """C9: work that was accepted keeps its place: a full queue does not refuse its next attempt."""

    @task(name="thread.again", max_attempts=2, backoff=Backoff(initial=0))
    def again(n: int) -> None:
        run = current_run()
        seen((n, run.attempt))
        if (n, run.attempt) == (0, 1):
            gate()
            raise Retry

    work = again.options(dispatcher=thread(workers=1, capacity=1))
    work.dispatch(0)
    gate.arrived()
    work.dispatch(1)
    gate.open()

    assert sorted(seen.wait(3)) == [(0, 1), (0, 2), (1, 1)]


def test_higher_priority_first(thread, block, note, gate, seen):
    """C6: of what waits, the higher priority runs first, and equals in their order."""
    dispatcher = thread(workers=1)
    block.options(dispatcher=dispatcher).dispatch()
    gate.arrived()

    for x, priority in ((1, None), (2, -5), (3, 7), (4, 0), (5, 7)):
        note.options(dispatcher=dispatcher, priority=priority).dispatch(x=x)
    gate.open()

    assert seen.wait(5) == [3, 5, 1, 4, 2]


def test_delay_holds_back(thread, seen):
    """C6: delayed work is not run before it is due, and what is due overtakes it."""

    @task(name="thread.when")
    def when(x: int) -> None:
        seen((x, monotonic()))

    work = when.options(dispatcher=thread(workers=1))
    started = monotonic()
    work.options(delay=timedelta(seconds=0.2)).dispatch(x=1)
    work.options(eta=datetime.now(UTC) + timedelta(seconds=0.1)).dispatch(x=2)
    work.dispatch(x=3)

    ran = seen.wait(3)
    assert [x for x, _ in ran] == [3, 2, 1]
    assert ran[2][1] - started >= 0.19


def test_a_delay_in_the_past_is_no_delay(thread, note, seen):
    """An eta that has passed is at once."""
    work = note.options(dispatcher=thread(), eta=datetime(1960, 1, 1, tzinfo=UTC))

    work.dispatch(x=1)

    assert seen.wait(1) == [1]


def test_a_very_long_delay_is_kept(thread, note, seen):
    """C6: a century is a delay like any other: no timeout of the machine overflows."""
    dispatcher = thread(workers=1)

    response = note.options(dispatcher=dispatcher, delay=timedelta(days=36500)).dispatch(x=1)
    note.options(dispatcher=dispatcher).dispatch(x=2)

    assert response.status is DispatchStatus.ACCEPTED
    assert seen.wait(1) == [2]
    assert dispatcher.close() == 1


def test_late_work_is_not_run(thread, note, seen):
    """C6: work that comes up after `expires` is not run, and leaves the queue."""
    dispatcher = thread(workers=1)
    late = note.options(
        dispatcher=dispatcher, delay=timedelta(seconds=0.05), expires=timedelta(seconds=0.01)
    )

    late.dispatch(x=1)
    note.options(dispatcher=dispatcher, delay=timedelta(seconds=0.1)).dispatch(x=2)

    assert seen.wait(1) == [2]
    assert dispatcher.close() == 0


def test_failures_are_tried_again(thread, seen):
    """Failed work is tried again up to `max_attempts`, with its back-off between."""

    @task(name="thread.flaky", max_attempts=3, backoff=Backoff(initial=0.05, factor=2))
    def flaky() -> None:
        seen((current_run().attempt, monotonic()))
        raise ValueError

    flaky.options(dispatcher=thread()).dispatch()

    (first, at1), (second, at2), (third, at3) = seen.wait(3)
    assert [first, second, third] == [1, 2, 3]
    assert at2 - at1 >= 0.05
    assert at3 - at2 >= 0.1


def test_retry_says_when(thread, seen):
    """`Retry(after=...)` beats the back-off."""

    @task(name="thread.retry", max_attempts=2, backoff=Backoff(initial=3600))
    def again() -> None:
        seen(current_run().attempt)
        raise Retry(after=0)

    again.options(dispatcher=thread()).dispatch()

    assert seen.wait(2) == [1, 2]


def test_discard_ends_it(thread, seen, log):
    """`Discard` is no failure: no attempt follows, and nothing is logged as an error."""

    @task(name="thread.discard", max_attempts=5, backoff=Backoff(initial=0))
    def discard() -> None:
        seen(current_run().attempt)
        raise Discard

    dispatcher = thread()
    discard.options(dispatcher=dispatcher).dispatch()
    dispatcher.close(GENEROUS)

    assert seen.items == [1]
    assert [text for level, text in log() if level >= logging.WARNING] == []


def test_async_runs_end_at_their_time_limit(thread, seen):
    """C6: an async run is cancelled at its time limit."""

    @task(name="thread.slow", time_limit=0.05)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen("cancelled")
            raise

    slow.options(dispatcher=thread()).dispatch()

    assert seen.wait(1) == ["cancelled"]


def test_sync_runs_see_their_time_limit(thread, seen):
    """C6: a sync run cannot be stopped, but sees `should_stop` once its time has passed."""

    @task(name="thread.patient", time_limit=0.01)
    def patient() -> None:
        run = current_run()
        while not run.should_stop:
            threading.Event().wait(0.001)
        seen(run.time_left)

    patient.options(dispatcher=thread()).dispatch()

    assert seen.wait(1)[0] <= 0


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_task_that_exits_ends_no_thread(thread, seen, log, kind):
    """C8: what is no `Exception` counts as failed, once in the log; the only thread goes on."""

    @task(name="thread.exits", max_attempts=3)
    def exits(x: int) -> None:
        if x == 0:
            raise kind("secret")
        seen(x)

    dispatcher = thread(workers=1, dead_letters="memory")
    work = exits.options(dispatcher=dispatcher)
    ended = work.dispatch(x=0)
    work.dispatch(x=1)

    assert seen.wait(1) == [1]
    errors = [text for level, text in log() if level == logging.ERROR]
    assert len(errors) == 1
    assert kind.__name__ in errors[0]
    assert "secret" not in errors[0]
    letter = dispatcher._dead_letters().get(ended.request_id)
    assert letter.error.exception_type == kind.__name__


def test_context_is_the_callers(thread, seen):
    """A run sees the context variables of its dispatch; each attempt begins with them afresh."""
    variable = contextvars.ContextVar("variable", default="nobody")

    @task(name="thread.context", max_attempts=2, backoff=Backoff(initial=0))
    def context() -> None:
        seen(variable.get())
        variable.set("handler")
        raise Retry(after=0)

    token = variable.set("caller")
    context.options(dispatcher=thread()).dispatch()
    variable.reset(token)

    assert seen.wait(2) == ["caller", "caller"]


def test_failed_for_good_is_kept(thread, log):
    """C9: work that failed permanently is a dead letter, with what a replay needs."""

    @task(name="thread.fails", max_attempts=2, backoff=Backoff(initial=0))
    def fails(x: int) -> None:
        raise ValueError(x)

    dispatcher = thread(dead_letters="memory")
    response = fails.options(dispatcher=dispatcher, queue="slow").dispatch(x=7)
    dispatcher.close(GENEROUS)

    letter = dispatcher._dead_letters().get(response.request_id)
    assert dispatcher.capabilities.dead_letters
    assert (letter.task, letter.queue, letter.reason, letter.attempts) == (
        "thread.fails", "slow", "exhausted", 2,
    )  # fmt: skip
    assert letter.error.exception_type == "ValueError"
    assert b'"x":7' in letter.body


def test_failed_for_good_is_logged_once_without_a_store(thread, log):
    """C4: one event is one record, and it does not quote the payload."""

    @task(name="thread.logged")
    def fails(x: str) -> None:
        raise ValueError(x)

    dispatcher = thread()
    fails.options(dispatcher=dispatcher).dispatch(x="secret")
    dispatcher.close(GENEROUS)

    errors = [text for level, text in log() if level == logging.ERROR]
    assert not dispatcher.capabilities.dead_letters
    assert len(errors) == 1
    assert "secret" not in errors[0]


class Fickle:
    """A dead-letter store that fails once."""

    def __init__(self) -> None:
        self.letters = []
        self.calls = 0

    def add(self, letter):
        self.calls += 1
        if self.calls == 1:
            raise OSError("disk of somebody")
        self.letters.append(letter)


def test_work_comes_back_if_its_letter_cannot_be_kept(thread, log, monkeypatch, seen):
    """C9: the work is not given up before the dead letter is safe; coming back is no attempt."""
    monkeypatch.setattr(settlement, "RETRY_DELAY", 0.0)

    @task(name="thread.fickle")
    def fails() -> None:
        seen((current_run().attempt, current_run().deliveries))
        raise ValueError

    store = Fickle()
    dispatcher = thread()
    dispatcher._pool._letters = store
    fails.options(dispatcher=dispatcher).dispatch()

    assert seen.wait(2) == [(1, 1), (1, 1)]
    assert dispatcher.close(GENEROUS) == 0
    assert len(store.letters) == 1
    assert any("OSError" in text and "disk" not in text for _, text in log())


def test_unknown_tasks_are_handed_back_then_dead(thread, request_, log):
    """C11: a task that nobody knows is a dead letter after the grace, not a silent skip."""
    dispatcher = thread(dead_letters="memory", skew_grace=0)

    response = dispatcher.dispatch(request_)
    dispatcher.close(GENEROUS)

    letter = dispatcher._dead_letters().get(response.request_id)
    assert response.status is DispatchStatus.ACCEPTED
    assert letter.reason == "unknown_task"


def test_within_the_grace_unknown_tasks_wait(thread, request_, log):
    """C11: within the grace the work is given back, and counts as left when it is closed then."""
    dispatcher = thread(skew_grace=900)

    dispatcher.dispatch(request_)
    left = dispatcher.close(GENEROUS)

    assert left == 1


def test_a_known_key_is_a_duplicate(thread, block, gate):
    """C10: a key that waits or runs is a duplicate; of another task it is not."""

    @task(name="thread.other")
    def other() -> None: ...

    dispatcher = thread(workers=1)
    keyed = block.options(dispatcher=dispatcher, idempotency_key="k", deduplicate=True)
    first = keyed.dispatch(0)
    gate.arrived()
    running = keyed.dispatch(0)
    scoped = other.options(dispatcher=dispatcher, idempotency_key="k").dispatch()

    assert first.status is DispatchStatus.ACCEPTED
    assert (running.status, running.task_id) == (DispatchStatus.DUPLICATE, first.request_id)
    assert running.ok
    assert scoped.status is DispatchStatus.ACCEPTED


def test_a_key_is_free_once_its_work_is_over(thread, note, seen):
    """C10: what this backend has is what waits or runs; beyond that, a store remembers."""
    dispatcher = thread(workers=1)
    keyed = note.options(dispatcher=dispatcher, idempotency_key="k")

    statuses = []
    for n in range(3):
        statuses.append(keyed.dispatch(x=n).status)
        seen.wait(n + 1)
        until(lambda: not dispatcher._pool._keys)

    assert statuses == [DispatchStatus.ACCEPTED] * 3


def test_repeating_a_request_runs_it_once(thread, block, note, gate, seen):
    """C10: without a key the request's id serves."""
    dispatcher = thread(workers=1)
    block.options(dispatcher=dispatcher).dispatch()
    gate.arrived()
    request = note.request(x=1)

    statuses = [each.status for each in dispatcher.dispatch_many([request, request])]
    gate.open()
    dispatcher.close(GENEROUS)

    assert statuses == [DispatchStatus.ACCEPTED, DispatchStatus.DUPLICATE]
    assert seen.items == [1]


def test_an_idempotency_store_is_asked(thread, note, seen):
    """C10: with a store, a key that ran does not run again."""
    dispatcher = thread(workers=1, idempotency="memory")
    key = uuid4().hex
    keyed = note.options(dispatcher=dispatcher, idempotency_key=key)

    keyed.dispatch(x=1)
    seen.wait(1)
    until(lambda: not dispatcher._pool._keys)
    keyed.dispatch(x=2)
    left = dispatcher.close(GENEROUS)

    assert left == 0
    assert seen.items == [1]


def test_no_thread_to_be_had_is_capacity(thread, note, monkeypatch, seen):
    """C1: a machine that gives no thread is an answer; nothing of it stays behind."""

    def start(self):
        raise RuntimeError("can't start new thread")

    dispatcher = thread()
    request = note.request(x=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        refused = dispatcher.dispatch(request)
    again = dispatcher.dispatch(request)

    assert refused.error.category is ErrorCategory.CAPACITY
    assert again.status is DispatchStatus.ACCEPTED
    assert seen.wait(1) == [1]


def test_many_threads_dispatch_at_once(thread, note, seen):
    """C8: one dispatcher serves many threads, and each piece of work runs exactly once."""
    dispatcher = thread(workers=4)
    work = note.options(dispatcher=dispatcher)
    threads = [
        threading.Thread(target=lambda n=n: [work.dispatch(x=n * 250 + i) for i in range(250)])
        for n in range(8)
    ]

    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert sorted(seen.wait(2000)) == list(range(2000))
    assert dispatcher.close(GENEROUS) == 0
    assert len(seen.items) == 2000
