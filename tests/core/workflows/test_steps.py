"""Steps: their answer is in the journal before their delivery is settled."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from dispatchers import (
    Action,
    Discard,
    DispatchRequest,
    Reason,
    Retry,
    RunSettings,
    arun_envelope,
    current_run,
    override,
    run_envelope,
    task,
)
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.values import Command, Commit, EntryKind, Start, Turn
from dispatchers._models.envelope import encode
from dispatchers._worker import steps
from dispatchers._worker.runner import killed
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.journals import JournalError

ID = "steps.flow/order-7"


class Down:
    """Claims that cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        raise JournalError("down for the test")


class Journal(MemoryJournal):
    """A journal whose calls can be made to fail, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name != "down" and name in self.down:
            if name == "claims":
                return Down()
            raise JournalError("down for the test")
        return super().__getattribute__(name)

    def answers(self) -> list[tuple[EntryKind, Any]]:
        found = self.entries(ID, timeout=1.0)
        return [(e.kind, json.loads(e.body or b"null")) for e in found if not e.kind.is_command]


@pytest.fixture
def queue():
    """The dispatcher by which the execution is woken."""
    queue = MemoryDispatcher()
    with override(default=queue):
        yield queue


@pytest.fixture
def journal(monkeypatch, queue):
    """A journal with an execution that awaits command 1."""
    journal = Journal()
    monkeypatch.setattr(steps, "current_journal", lambda: journal)
    start = Start(ID, "steps.flow", 1, "default", "flows", b'{"traceparent":"x"}', b"{}", 0.0)
    journal.begin(start, timeout=1.0)
    turn = journal.take(ID, "a", wakeup="w", after=0, timeout=1.0)
    assert isinstance(turn, Turn)
    command = Command(1, EntryKind.STEP, "steps.one", b"", b"{}", "default")
    journal.commit(turn, Commit(time.time(), 0, [command]), timeout=1.0)
    return journal


@pytest.fixture
def step():
    """A task by its function, and the envelope of a step of it."""

    def make(function: Any, ref: str = f"{ID}/1", **options: Any) -> tuple[Any, bytes]:
        made = task(name=options.pop("name", "steps.one"), **options)(function)
        request = made.options(headers={steps.STEP: ref}).request()
        return made, encode(request)

    return make


@pytest.mark.parametrize("is_async", [False, True])
def test_the_result_is_recorded_and_the_execution_woken(journal, queue, step, is_async):
    """D3: a step answers with its typed result, and asks for a turn."""

    async def awaited() -> tuple[int, str]:
        return (3, "a")

    def called() -> tuple[int, str]:
        return (3, "a")

    _, body = step(awaited if is_async else called)
    outcome = asyncio.run(arun_envelope(body)) if is_async else run_envelope(body)

    assert (outcome.action, outcome.reason) == (Action.DONE, Reason.SUCCEEDED)
    assert journal.answers() == [(EntryKind.DONE, [3, "a"])]
    (wake,) = queue.waiting
    assert (wake.task, wake.queue) == ("steps.flow/turn", "flows")
    assert wake.payload == {"execution": ID}
    assert wake.headers == {"traceparent": "x"}


def test_an_answered_step_does_not_run_again(journal, queue, step):
    """D3, K12: a redelivery finds the answer, and only wakes."""
    calls = []
    _, body = step(lambda: calls.append(1))
    run_envelope(body)
    queue.claim()
    outcome = run_envelope(body, deliveries=2)

    assert outcome.reason is Reason.DUPLICATE
    assert calls == [1]
    assert len(journal.answers()) == 1
    assert len(queue.waiting) == 1


def test_a_run_that_is_tried_again_records_nothing(journal, queue, step):
    """D12: only the last attempt's failure is the step's."""

    def fails() -> None:
        raise OSError("no room")

    _, body = step(fails, max_attempts=2)
    first = run_envelope(body)
    assert (first.action, journal.answers()) == (Action.RETRY, [])
    last = run_envelope(body, attempt=2)

    assert last.action is Action.DEAD
    words = {"exception_type": "OSError", "message": "no room", "attempts": 2}
    assert journal.answers() == [(EntryKind.FAILED, {"category": "handler", **words})]
    assert len(queue.waiting) == 1


def test_a_result_that_does_not_fit_fails_the_step(journal, step):
    """D7: a wrong result is the step's failure, not retried and kept as a dead letter."""

    def wrong() -> int:
        return "3"  # type: ignore[return-value]

    _, body = step(wrong, max_attempts=5)
    outcome = run_envelope(body)

    assert (outcome.action, outcome.reason) == (Action.DEAD, Reason.PERMANENT)
    ((kind, failure),) = journal.answers()
    assert (kind, failure["category"]) == (EntryKind.FAILED, "invalid")
    assert failure["message"] == "the result is a str, and should be a valid integer"


@pytest.mark.parametrize(("annotation", "kind"), [(None, EntryKind.DONE), (int, EntryKind.FAILED)])
def test_a_step_that_discards_its_work_answers(journal, step, annotation, kind):
    """D12: `Discard` is no failure where the result may be None."""

    def discards():  # type: ignore[no-untyped-def]
        raise Discard("sold out")

    discards.__annotations__["return"] = annotation
    _, body = step(discards)
    run_envelope(body)

    assert [kind for kind, _ in journal.answers()] == [kind]


@pytest.mark.parametrize(
    ("call", "runs"),
    [("claims", 0), ("is_answered", 0), ("answer", 1), ("look", 0)],
)
def test_a_journal_that_is_down_gives_the_delivery_back(journal, step, call, runs):
    """K15, K16: the step comes again, and its answer is recorded then."""
    calls = []
    _, body = step(lambda: calls.append(1))
    if call == "look":
        run_envelope(body)
        calls.clear()
    journal.down.add(call)
    outcome = run_envelope(body)

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.STORE_UNAVAILABLE)
    assert len(calls) == runs
    journal.down.clear()
    assert run_envelope(body).action is Action.DONE
    assert len(journal.answers()) == 1


def test_a_step_that_runs_elsewhere_is_given_back(journal, step):
    """D3: no second run begins while the first renews its claim."""
    seen = []

    def once() -> None:
        seen.append(run_envelope(body).reason)

    _, body = step(once)
    run_envelope(body)

    assert seen == [Reason.IN_FLIGHT]


def test_a_lost_claim_does_not_lose_the_answer(journal, step):
    """D3: whoever answers first has answered; the delivery is not settled by a late worker."""

    def late() -> int:
        for beat in current_run().lease:
            beat.lost = True
        assert current_run().should_stop
        return 3

    _, body = step(late)
    outcome = run_envelope(body)

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.LEASE_LOST)
    assert journal.answers() == [(EntryKind.DONE, 3)]


def test_a_step_of_an_ended_execution_should_stop(journal, step):
    """D11: the renewal of the claim notices that nothing waits for the answer."""
    stops = []

    def running() -> None:
        journal.terminate(ID, "over", at=0.0, timeout=1.0)
        for beat in current_run().lease:
            beat.beat()
        stops.append(current_run().should_stop)

    _, body = step(running)
    run_envelope(body)

    assert stops == [True]
    assert run_envelope(body).reason is Reason.DUPLICATE


def test_a_broker_that_is_down_brings_the_step_back_to_wake(journal, queue, step):
    """S4: the answer stands, the delivery goes back, and only wakes then."""
    calls = []
    _, body = step(lambda: calls.append(1))
    with override(default=MemoryDispatcher(capacity=1)) as _:
        steps.woken(steps.wake_of(journal.look(ID, timeout=1.0)))
        outcome = run_envelope(body)

    assert outcome.action is Action.RETURN
    assert run_envelope(body).reason is Reason.DUPLICATE
    assert calls == [1]
    assert len(queue.waiting) == 1


def test_without_a_journal_a_step_is_handed_back_then_dead(monkeypatch, queue, step):
    """D19: what cannot be recorded is not run."""
    from dispatchers import ConfigurationError

    def refuse() -> Any:
        raise ConfigurationError("no journal is configured: write workflows = ...")

    monkeypatch.setattr(steps, "current_journal", refuse)
    calls = []
    _, body = step(lambda: calls.append(1))
    young = run_envelope(body)
    old = run_envelope(body, settings=RunSettings(skew_grace=0.0))

    assert (young.action, young.reason) == (Action.RETURN, Reason.NO_JOURNAL)
    assert (old.action, old.reason) == (Action.DEAD, Reason.NO_JOURNAL)
    assert old.error is not None
    assert ID in old.error.message
    assert "workflows = " in old.error.message
    assert calls == []


def test_a_step_that_will_never_run_fails(journal, step):
    """D12: an execution does not wait for what is dead-lettered before it runs."""
    _, body = step(lambda: None)
    outcome = run_envelope(body, deliveries=6)

    assert (outcome.action, outcome.reason) == (Action.DEAD, Reason.TOO_MANY_DELIVERIES)
    ((kind, failure),) = journal.answers()
    assert kind is EntryKind.FAILED
    assert "6 times" in failure["message"]


def test_a_step_that_expired_or_is_unknown_fails(journal, queue):
    """D12: whatever ends a delivery without a run answers for it."""
    request = DispatchRequest(task="steps.gone", headers={steps.STEP: f"{ID}/1"})
    settings = RunSettings(skew_grace=0.0)
    assert run_envelope(encode(request), settings=settings).action is Action.DEAD

    ((kind, failure),) = journal.answers()
    assert (kind, failure["category"]) == (EntryKind.FAILED, "not_found")


def test_a_step_that_was_killed_at_its_time_limit_fails(journal, step):
    """D12: the process that ran it cannot answer any more."""
    _, body = step(lambda: None, time_limit=1.0)
    killed(body, attempt=1, deliveries=1)

    ((kind, failure),) = journal.answers()
    assert kind is EntryKind.FAILED
    assert failure["exception_type"].endswith("TimeLimitError")


@pytest.mark.parametrize("ref", ["", "x", "x/", "/1", "x/y", f"{ID}/{'9' * 20}", f"{ID}/1²"])
def test_a_header_of_another_form_is_no_step(journal, step, ref):
    """A task runs as ever where the header is not ours."""
    calls = []
    _, body = step(lambda: calls.append(1), ref=ref)
    assert run_envelope(body).reason is Reason.SUCCEEDED

    assert calls == [1]
    assert journal.answers() == []


def test_giving_up_while_the_worker_stops_records_nothing(journal, step):
    """D3: the claim is free again for the next worker."""

    def stops() -> None:
        if current_run().should_stop:
            raise Retry

    _, body = step(stops)
    outcome = run_envelope(body, stopping=lambda: True)

    assert outcome.reason is Reason.STOPPING
    assert journal.answers() == []
    assert run_envelope(body).reason is Reason.SUCCEEDED
