"""`memory`: a queue that is worked off by hand, with a clock that can be put forward."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta

import pytest

from dispatchers import Backoff, Discard, DispatchStatus, ErrorCategory, Retry, current_run, task
from dispatchers._models import outcome as outcomes
from dispatchers._worker import settlement
from dispatchers.backends.memory import MemoryDispatcher

HOUR = timedelta(hours=1)


@pytest.fixture
def memory():
    return MemoryDispatcher()


@pytest.fixture
def note(seen):
    """A task that notes its argument."""

    @task(name="memory.note")
    def note(x: int) -> None:
        seen(x)

    return note


@pytest.fixture
def fails(seen):
    """A task that notes its attempt and fails."""

    @task(name="memory.fails", max_attempts=2, backoff=Backoff(initial=60))
    def fails() -> None:
        seen((current_run().attempt, current_run().deliveries))
        raise ValueError("secret")

    return fails


def test_waits_until_it_is_stepped_through(memory, note, seen):
    """C3: work is accepted and waits; a step runs the next of it."""
    work = note.options(dispatcher=memory)

    responses = [work.dispatch(x=x) for x in (1, 2)]
    before = list(seen.items)
    outcome = memory.step()

    assert {each.status for each in responses} == {DispatchStatus.ACCEPTED}
    assert (responses[0].confirmed, responses[0].durable) == (True, False)
    assert before == []
    assert seen.items == [1]
    assert outcome.ok
    assert outcome.request_id == responses[0].request_id


def test_nothing_due_is_no_step(memory):
    """A step without work says so."""
    assert memory.step() is None
    assert memory.claim() is None
    assert memory.run_all() == []


def test_waiting_shows_the_requests(memory, note):
    """What waits can be looked at as requests, in the order it would run."""
    work = note.options(dispatcher=memory)
    work.options(delay=HOUR).dispatch(x=1)
    work.dispatch(x=2)
    work.options(priority=1).dispatch(x=3)

    waiting = memory.waiting

    assert [request.payload["x"] for request in waiting] == [3, 2, 1]
    assert waiting[2].delay == HOUR


def test_run_all_runs_what_is_dispatched_meanwhile(memory, seen):
    """Work that dispatches work is followed to its end."""

    @task(name="memory.chain")
    def chain(n: int) -> None:
        seen(n)
        if n:
            chain.options(dispatcher=memory).dispatch(n - 1)

    chain.options(dispatcher=memory).dispatch(3)
    outcomes = memory.run_all()

    assert seen.items == [3, 2, 1, 0]
    assert len(outcomes) == 4


def test_run_all_has_a_limit(memory):
    """A task that dispatches itself for ever does not hang a test."""

    @task(name="memory.endless")
    def endless() -> None:
        endless.options(dispatcher=memory).dispatch()

    endless.options(dispatcher=memory).dispatch()

    assert len(memory.run_all(limit=5)) == 5
    assert len(memory.waiting) == 1


def test_time_passes_when_told_to(memory, note, seen):
    """C6: delayed work is due when the clock says so, and not before."""
    work = note.options(dispatcher=memory)
    work.options(delay=HOUR).dispatch(x=1)
    work.options(eta=datetime.now(UTC) + 2 * HOUR).dispatch(x=2)

    steps = []
    for minutes in (59, 1, 59, 2):
        memory.advance(timedelta(minutes=minutes))
        steps.append([outcome.ok for outcome in memory.run_all()])

    assert steps == [[], [True], [], [True]]
    assert seen.items == [1, 2]


def test_a_clock_can_be_given(note):
    """Time may be wholly the test's own."""
    clock = [datetime(2100, 1, 1, tzinfo=UTC)]
    memory = MemoryDispatcher(clock=lambda: clock[0])
    note.options(dispatcher=memory, eta=datetime(2100, 1, 2, tzinfo=UTC)).dispatch(x=1)

    before = memory.step()
    clock[0] = datetime(2100, 1, 2, tzinfo=UTC)

    assert before is None
    assert memory.step().ok
    assert memory.now == clock[0]


def test_late_work_is_not_run(memory, note, seen):
    """C6: work that is late by the queue's clock is not run, and its key is free again."""
    keyed = note.options(dispatcher=memory, expires=HOUR, idempotency_key="k")
    keyed.dispatch(x=1)
    memory.advance(HOUR)

    outcome = memory.step()

    assert outcome.reason is outcomes.Reason.EXPIRED
    assert seen.items == []
    assert keyed.dispatch(x=2).status is DispatchStatus.ACCEPTED


def test_higher_priority_first(memory, note, seen):
    """C6: the higher priority runs first, across queues, and equals in their order."""
    for x, priority, queue in ((1, None, "a"), (2, -5, "a"), (3, 7, "b"), (4, 0, "b"), (5, 7, "a")):
        note.options(dispatcher=memory, priority=priority, queue=queue).dispatch(x=x)

    memory.run_all()

    assert seen.items == [3, 5, 1, 4, 2]


def test_queues_are_apart(note, seen):
    """A worker of one queue leaves the others alone; requests that name none go to the default."""
    memory = MemoryDispatcher(queue="usual")
    note.options(dispatcher=memory, queue="slow").dispatch(x=1)
    note.options(dispatcher=memory).dispatch(x=2)

    first = memory.step(queues=["usual"])
    second = memory.step(queues=["usual"])
    third = memory.step(queues=["usual", "slow"])

    assert (first.ok, second, third.ok) == (True, None, True)
    assert seen.items == [2, 1]


def test_full_is_capacity(note):
    """C4: a full queue refuses with `capacity`, and repeating may help; a claim makes room."""
    memory = MemoryDispatcher(capacity=1)
    work = note.options(dispatcher=memory)

    work.dispatch(x=1)
    refused = work.dispatch(x=2)
    memory.step()
    taken = work.dispatch(x=3)

    assert refused.error.category is ErrorCategory.CAPACITY
    assert refused.error.retryable
    assert taken.ok


def test_failures_wait_for_their_next_attempt(memory, fails, seen):
    """Failed work waits for its back-off, and is dead after its last attempt."""
    response = fails.options(dispatcher=memory).dispatch()

    first, early = memory.step(), memory.step()
    memory.advance(timedelta(seconds=60))
    second = memory.step()

    assert (first.action, first.after) == (outcomes.Action.RETRY, 60)
    assert early is None
    assert second.action is outcomes.Action.DEAD
    assert seen.items == [(1, 1), (2, 1)]
    (letter,) = memory.dead
    assert (letter.id, letter.reason, letter.attempts, letter.queue) == (
        response.request_id, "exhausted", 2, "default",
    )  # fmt: skip
    assert memory.waiting == ()


def test_retry_and_discard(memory, seen):
    """`Retry(after=...)` says when, `Discard` ends the work without a dead letter."""

    @task(name="memory.asks", max_attempts=3)
    def asks() -> None:
        seen(current_run().attempt)
        if current_run().attempt == 1:
            raise Retry(after=timedelta(hours=1))
        raise Discard

    asks.options(dispatcher=memory).dispatch()
    first = memory.step()
    memory.advance(HOUR)
    second = memory.step()

    assert first.after == 3600
    assert second.reason is outcomes.Reason.DISCARDED
    assert second.ok
    assert memory.dead == []


def test_a_dead_worker_means_another_delivery(memory, note, seen):
    """C10: what a worker held when it died is delivered again; that is no attempt."""
    note.options(dispatcher=memory).dispatch(x=1)

    first = memory.claim()
    nobody_elses = memory.claim()
    abandoned = memory.abandon(first)
    second = memory.claim()

    assert nobody_elses is None
    assert abandoned
    assert (first.request, second.body) == (second.request, first.body)
    assert (second.attempt, second.deliveries) == (1, 2)


def test_a_late_result_does_not_count(memory, note, fails):
    """C9: the worker that was given up cannot settle, nor abandon, what another one has."""
    fails.options(dispatcher=memory).dispatch()
    late = memory.claim()
    memory.abandon(late)
    current = memory.claim()

    outcome = outcomes.Outcome(action=outcomes.Action.RETRY, reason=outcomes.Reason.FAILED)
    refused = [memory.settle(late, outcome), memory.abandon(late)]
    finished = memory.run(current)

    assert refused == [False, False]
    assert finished.attempt == 1
    assert current.attempt == 2


def test_a_late_failure_makes_no_dead_letter(memory, fails):
    """C9: nor does the late worker's verdict bury what another one has."""
    fails.options(dispatcher=memory).dispatch()
    late = memory.claim()
    memory.abandon(late)

    outcome = outcomes.Outcome(action=outcomes.Action.DEAD, reason=outcomes.Reason.EXHAUSTED)
    memory.settle(late, outcome)

    assert memory.dead == []
    assert len(memory.waiting) == 1


def test_work_that_kills_its_workers_is_dead(memory, seen):
    """C10: beyond `max_deliveries` work is dead-lettered unrun, and its key is free again."""
    memory = MemoryDispatcher(max_deliveries=2)

    @task(name="memory.kills")
    def kills() -> None:
        seen(current_run().deliveries)
        raise SystemExit

    keyed = kills.options(dispatcher=memory, idempotency_key="k")
    keyed.dispatch()
    for _ in range(2):
        with pytest.raises(SystemExit):
            memory.step()
    last = memory.step()

    assert seen.items == [1, 2]
    assert last.reason is outcomes.Reason.TOO_MANY_DELIVERIES
    assert memory.dead[0].deliveries == 3
    assert keyed.dispatch().status is DispatchStatus.ACCEPTED


def test_a_return_is_no_delivery_that_counts(memory, request_, log):
    """C10: work given back, as an unknown task is, comes back as the same attempt and delivery."""
    memory.dispatch(request_)

    outcome = memory.step()
    memory.advance(timedelta(seconds=outcome.after))
    delivery = memory.claim()

    assert outcome.action is outcomes.Action.RETURN
    assert (delivery.attempt, delivery.deliveries) == (1, 1)


def test_known_keys_are_duplicates_until_forgotten(memory, note, fails):
    """C10: a key that waits, runs or ran is a duplicate, of its task, until it is forgotten."""
    keyed = note.options(dispatcher=memory, idempotency_key="k", deduplicate=True)

    first = keyed.dispatch(x=1)
    waiting = keyed.dispatch(x=1)
    delivery = memory.claim()
    running = keyed.dispatch(x=1)
    memory.run(delivery)
    finished = keyed.dispatch(x=1)
    other_task = fails.options(dispatcher=memory, idempotency_key="k").dispatch().status
    wrong = memory.forget(task="memory.note", key="other")
    right = memory.forget(task="memory.note", key="k")
    forgotten = keyed.dispatch(x=1).status

    assert first.status is DispatchStatus.ACCEPTED
    for each in (waiting, running, finished):
        assert (each.status, each.task_id) == (DispatchStatus.DUPLICATE, first.request_id)
    assert other_task is DispatchStatus.ACCEPTED
    assert (wrong, right) == (0, 1)
    assert forgotten is DispatchStatus.ACCEPTED


def test_a_dead_letter_frees_its_key(memory, fails):
    """C10: work that failed permanently releases its key."""
    keyed = fails.options(dispatcher=memory, idempotency_key="k", max_attempts=1)

    keyed.dispatch()
    memory.step()

    assert keyed.dispatch().status is DispatchStatus.ACCEPTED


def test_only_so_many_keys_are_remembered(note):
    """Memory is bounded: the oldest finished keys are forgotten first."""
    memory = MemoryDispatcher(remember=1)
    for key in ("a", "b"):
        note.options(dispatcher=memory, idempotency_key=key).dispatch(x=1)
    memory.run_all()

    statuses = [
        note.options(dispatcher=memory, idempotency_key=key).dispatch(x=1).status for key in "ba"
    ]

    assert statuses == [DispatchStatus.DUPLICATE, DispatchStatus.ACCEPTED]


def test_repeating_a_request_is_a_duplicate(memory, note):
    """C10: without a key the request's id serves."""
    request = note.request(x=1)

    statuses = [each.status for each in memory.dispatch_many([request, request])]

    assert statuses == [DispatchStatus.ACCEPTED, DispatchStatus.DUPLICATE]


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


def test_work_comes_back_if_its_letter_cannot_be_kept(memory, fails, log):
    """C9: work is not given up before its dead letter is safe; coming back is no attempt."""
    memory._letters = store = Fickle()
    fails.options(dispatcher=memory, max_attempts=1).dispatch()

    memory.step()
    early = memory.step()
    memory.advance(timedelta(seconds=settlement.RETRY_DELAY))
    memory.step()

    assert early is None
    assert [letter.attempts for letter in store.letters] == [1]
    assert memory.waiting == ()


def test_a_ctrl_c_ends_the_step_and_loses_nothing(memory, seen):
    """C1: `KeyboardInterrupt` passes through a step, and the work waits for its next delivery."""

    @task(name="memory.interrupted")
    def interrupted() -> None:
        seen(current_run().deliveries)
        if current_run().deliveries == 1:
            raise KeyboardInterrupt

    interrupted.options(dispatcher=memory).dispatch()
    with pytest.raises(KeyboardInterrupt):
        memory.step()

    assert memory.step().ok
    assert seen.items == [1, 2]


def test_sync_and_async_agree(memory, note):
    """C8: on an event loop the answers are the same."""
    requests = [note.request(x=x) for x in range(3)]

    one = asyncio.run(memory.adispatch(requests[0]))
    many = asyncio.run(memory.adispatch_many(requests))

    assert one.status is DispatchStatus.ACCEPTED
    assert [each.status.value for each in many] == ["duplicate", "accepted", "accepted"]


def test_close_says_how_much_is_left(memory, note):
    """C8: what waits and what workers hold is left; afterwards nothing is taken."""
    work = note.options(dispatcher=memory)
    work.dispatch(x=1)
    work.options(delay=HOUR).dispatch(x=2)
    work.dispatch(x=3)
    memory.claim()

    left = memory.close()

    assert left == 3
    assert work.dispatch(x=4).error.category is ErrorCategory.CLOSED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_with_nothing(memory, note):
    """C8: what waits in the parent is the parent's; the child has a queue of its own."""
    work = note.options(dispatcher=memory)
    work.dispatch(x=1)

    with memory._queue.changed:
        pid = os.fork()
        if pid == 0:
            alone = memory.waiting == () and work.dispatch(x=2).ok and memory.step().ok
            os._exit(0 if alone else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert code == 0
    assert len(memory.waiting) == 1


def test_errors_name_the_task_and_not_the_payload(memory, fails, log):
    """C4: the log of a failure has type and place only."""
    fails.options(dispatcher=memory, max_attempts=1).dispatch()

    memory.step()

    (error,) = (text for level, text in log() if level == logging.ERROR)
    assert "memory.fails" in error
    assert "secret" not in error
