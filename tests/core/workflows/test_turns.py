"""Turns, taken by hand: a queue that is stepped through, and a journal that can be down."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from dispatchers import (
    Action,
    ConfigurationError,
    DeclarationError,
    Outcome,
    Reason,
    RunSettings,
    catalogue,
    current_run,
    delivery,
    get_dispatcher,
    override,
    run_envelope,
    task,
)
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.values import EntryKind, Refusal, Start, Status
from dispatchers._models.envelope import encode
from dispatchers._runtime.cancellation import TimeLimitError
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.journals import JournalError
from dispatchers.workflows import (
    ExecutionError,
    Signal,
    StepError,
    Workflow,
    _execution,
    _hand_over,
    _sweep,
    _tasks,
    _turn,
    local,
    now,
    patched,
    publish,
    restart,
    undo,
    workflow,
)
from dispatchers.workflows._cache import LiveCache, live

approval = Signal("approval", int)
calls: list[Any] = []


@task(name="turns.add")
def add(left: int, right: int) -> int:
    calls.append(("add", left, right))
    return left + right


@task(name="turns.fail")
def fail(words: str) -> int:
    raise OSError(words)


@task(name="turns.refund")
def refund(amount: int) -> None:
    calls.append(("refund", amount))


@task(name="turns.note")
def note(text: str) -> None:
    calls.append(("note", text))


class Journal(MemoryJournal):
    """A journal whose calls can be made to fail, and turns to be taken by another."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()
        self.before: dict[str, Callable[[], object]] = {}

    def __getattribute__(self, name: str) -> Any:
        if name not in ("down", "before"):
            if name in self.down:
                raise JournalError("down for the test")
            if name in self.before:
                self.before.pop(name)()
        return super().__getattribute__(name)


@pytest.fixture
def journal(monkeypatch) -> Journal:
    journal = Journal()
    for module in (_tasks, _execution, _sweep):
        monkeypatch.setattr(module, "current_journal", lambda: journal)
    from dispatchers._worker import steps

    monkeypatch.setattr(steps, "current_journal", lambda: journal)
    # By hand: no thread sweeps.
    monkeypatch.setattr(_tasks, "sweep_here", lambda alias: None)
    return journal


@pytest.fixture
def queue(journal) -> Iterator[MemoryDispatcher]:
    calls.clear()
    queue = MemoryDispatcher()
    with override(default=queue):
        yield queue
    live.clear()


@pytest.fixture
def flow() -> Iterator[Callable[..., Workflow[..., Any]]]:
    """Makes workflows of one name, which are forgotten afterwards."""
    made: list[Any] = []

    def make(function: Any, **options: Any) -> Workflow[..., Any]:
        _forget(made)
        found = workflow(**{"name": "turns.flow", **options})(function)
        made.append(found)
        return found

    yield make
    _forget(made)


def _forget(made: list[Any]) -> None:
    while made:
        gone = made.pop()
        catalogue.remove(gone)
        catalogue.remove(gone.turns)


def started(flow: Workflow[..., Any], *args: Any, key: str = "k", **kwargs: Any) -> Any:
    flow.options(idempotency_key=key).dispatch(*args, **kwargs).raise_for_error()
    return flow.execution(key)


def test_the_same_key_starts_one_execution(queue, flow):
    """D1: however often it is dispatched, also once it has ended."""

    async def code(number: int) -> int:
        return await add.step(number, 1)

    made = flow(code)
    for _ in range(3):
        started(made, 3)
        queue.forget()
        queue.run_all()

    assert made.execution("k").result(timeout=1) == 4
    assert calls == [("add", 3, 1)]


def test_a_start_that_comes_twice_at_once_starts_one(queue, flow, journal):
    """D1: the second finds it, and need not wake it."""

    async def code(number: int) -> int:
        return await add.step(number, 1)

    made = flow(code)
    started(made, 3)
    body = queue.claim()
    assert body is not None
    queue.run(body)
    started(made, 3)
    queue.run_all()

    assert calls == [("add", 3, 1)]


def test_every_message_may_be_lost(queue, flow, journal):
    """D2, K13: what no queue knows any more is found by a sweep."""

    async def code(number: int) -> int:
        for _ in range(3):
            number = await add.step(number, 1)
        return number

    made = flow(code)
    execution = started(made, 1)
    queue.step()
    for _ in range(20):
        if execution.status() == "completed":
            break
        lost = queue.claim()
        while lost is not None and lost.task == "turns.flow/turn":
            queue.settle(lost, _done())
            lost = queue.claim()
        if lost is not None:
            queue.run(lost)
        _late(journal)
        _sweep.sweep()
        turn = queue.claim()
        if turn is not None:
            queue.run(turn)

    assert execution.result(timeout=1) == 4
    assert calls == [("add", 1, 1), ("add", 2, 1), ("add", 3, 1)]


def _done() -> Any:
    from dispatchers import Outcome

    return Outcome(action=Action.DONE, reason=Reason.SUCCEEDED)


def _late(journal: Journal) -> None:
    """Let so much time pass that wake-ups count as lost."""
    journal._unread_after = 0.0
    journal._pause = lambda _: 0.0


def test_every_message_may_come_twice(queue, flow, journal):
    """D2: a doubled message changes nothing."""
    original = queue._send

    def twice(request: Any, body: bytes, *, timeout: float) -> Any:
        original(request.replace(id=f"again-{request.id[:50]}"), body, timeout=timeout)
        return original(request, body, timeout=timeout)

    queue._send = twice

    async def code(number: int) -> int:
        first, second = await asyncio.gather(add.step(number, 1), add.step(number, 2))
        return await add.step(first, second)

    execution = started(flow(code), 1)
    queue.run_all()

    assert execution.result(timeout=1) == 5
    assert sorted(calls) == [("add", 1, 1), ("add", 1, 2), ("add", 2, 3)]


@pytest.mark.parametrize("call", ["begin", "take", "commit", "sent", "answer", "is_answered"])
def test_a_journal_that_is_down_costs_time_only(queue, flow, journal, call):
    """K15, K16: deliveries go back, and what was done is found once it is up again."""

    async def code(number: int) -> int:
        return await add.step(number, 1)

    execution = started(flow(code), 3)
    journal.down.add(call)
    for _ in range(4):
        queue.step()
        queue.advance(timedelta(seconds=10))
    journal.down.clear()
    for _ in range(4):
        queue.run_all()
        queue.advance(timedelta(seconds=30))

    assert execution.result(timeout=1) == 4


def test_a_commit_of_which_nothing_is_known_is_read_back(queue, flow, journal):
    """K17: it may be recorded; the next turn goes on from what is there."""

    async def code(number: int) -> int:
        return await add.step(await add.step(number, 1), 1)

    execution = started(flow(code), 3)
    commit = journal.commit
    failing = [True, True]

    def unknown(*args: Any, **kwargs: Any) -> Any:
        found = commit(*args, **kwargs)
        if failing and failing.pop():
            raise JournalError("connection lost", maybe_written=True)
        return found

    journal.commit = unknown  # type: ignore[method-assign]
    for _ in range(6):
        queue.run_all()
        queue.advance(timedelta(seconds=10))
        _late(journal)
        time.sleep(0.01)
        _sweep.sweep()
    for unsent in journal._executions.values():
        unsent.unsent = {n: u._replace(next_try=0.0) for n, u in unsent.unsent.items()}
    _sweep.sweep()
    queue.run_all()

    assert execution.result(timeout=1) == 5
    assert calls == [("add", 3, 1), ("add", 4, 1)]


def test_a_superseded_turn_has_no_effect(queue, flow, journal):
    """D9, K18: what an older turn found out is refused, and nothing of it leaves."""

    async def code(number: int) -> int:
        return await add.step(number, 1)

    execution = started(flow(code), 3)
    wakeup = queue.waiting[0].id
    journal.before["commit"] = lambda: journal.take(
        execution.id, "other", wakeup=wakeup, after=0, timeout=1.0
    )
    queue.step()

    assert not journal.entries(execution.id, timeout=1.0)
    assert queue.waiting == ()
    assert execution.status() == "running"


def test_a_turn_that_another_holds_is_left_to_it(queue, flow, journal):
    """T1: the holder looks again before it leaves."""

    async def code() -> int:
        return await approval.receive()

    made = flow(code)
    execution = started(made)
    queue.run_all()
    assert not isinstance(
        journal.take(execution.id, "other", wakeup="w", after=0, timeout=1.0), Refusal
    )
    approval.send(made, "k", 3).raise_for_error()
    outcomes = queue.run_all()

    assert [each.reason for each in outcomes] == [Reason.SUCCEEDED]
    assert execution.status() == "running"


def test_code_that_changed_is_stuck_until_it_is_right_again(queue, flow, caplog):
    """D5, K19: nothing leaves, the reason is said, and mended code goes on."""

    async def code(number: int) -> int:
        total = await add.step(number, 1)
        return total + await approval.receive()

    async def changed(number: int) -> int:
        total = await add.step(number, 2)
        await note.step("never")
        return total + await approval.receive()

    made = flow(code)
    execution = started(made, 3)
    queue.run_all()
    live.clear()
    wrong = flow(changed)
    approval.send(wrong, "k", 9)
    with caplog.at_level(logging.ERROR, "dispatchers"):
        queue.run_all()

    assert execution.status() == "stuck"
    assert "command 1" in execution.why()
    assert "other arguments" in caplog.text
    assert calls == [("add", 3, 1)]
    flow(code)
    assert _sweep.retry_stuck() == 1
    queue.run_all()
    assert execution.result(timeout=1) == 13


def test_an_execution_stays_on_its_version(queue, flow):
    """D13: new ones begin on the latest, old ones keep their code, arguments and all."""

    async def first(number: int) -> int:
        return number + await approval.receive()

    async def second(number: int, factor: int = 2) -> int:
        return number * factor * await approval.receive()

    old = started(flow(first), 3)
    queue.run_all()
    live.clear()
    made = flow(second, version=2)
    made.version(1)(first)
    new = started(made, 3, key="new")
    approval.send(made, "k", 9)
    approval.send(made, "new", 9)
    queue.run_all()

    assert (old.result(timeout=1), new.result(timeout=1)) == (12, 54)


def test_a_worker_without_the_version_hands_the_turn_back(queue, flow):
    """D13, C11: another worker may have it."""

    async def first(number: int) -> int:
        return number + await approval.receive()

    old = started(flow(first), 3)
    queue.run_all()
    live.clear()
    made = flow(first, version=2)
    approval.send(made, "k", 9)
    (outcome,) = queue.run_all()

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.UNKNOWN_TASK)
    assert "version 1" in outcome.error.message
    made.version(1)(first)
    queue.advance(timedelta(seconds=10))
    queue.run_all()
    assert old.result(timeout=1) == 12


def test_arguments_that_no_longer_fit_are_stuck_with_the_cure(queue, flow):
    """D5: a changed signature without a version is said."""

    async def before(number: int) -> int:
        return number + await approval.receive()

    async def after(number: str) -> int:
        return await approval.receive()

    execution = started(flow(before), 3)
    queue.run_all()
    live.clear()
    approval.send(flow(after), "k", 9)
    queue.run_all()

    assert execution.status() == "stuck"
    assert "version" in execution.why()
    assert "'number'" in execution.why()


def test_a_step_that_failed_for_good_can_be_caught(queue, flow):
    """D12: `StepError.of` knows it by its exception."""

    async def code() -> str:
        try:
            await fail.step("no room")
        except StepError.of(OSError) as exc:
            return f"{exc.category}: {exc.message}"
        return "no"

    execution = started(flow(code))
    queue.run_all()

    assert execution.result(timeout=1) == "handler: no room"


def test_a_step_that_is_late_fails(queue, flow):
    """D12: also where its queue puts aside what has expired; it never ran."""

    async def code() -> str:
        late = add.options(expires=now() + timedelta(hours=1))
        try:
            await late.step(1, 1)
        except StepError as exc:
            return exc.category
        return "in time"

    execution = started(flow(code))
    queue.step()
    queue.advance(timedelta(hours=2))
    queue.run_all()

    assert execution.result(timeout=1) == "expired"
    assert calls == []


def test_a_failed_execution_says_why_and_can_be_resumed(queue, flow, monkeypatch):
    """D12: it is kept, and goes on from the step that failed."""

    async def code() -> int:
        first = await add.step(1, 1)
        return first + await fail.step("no room")

    execution = started(flow(code))
    queue.run_all()

    with pytest.raises(ExecutionError, match=r"OSError: no room") as found:
        execution.result(timeout=1)
    assert found.value.exception_type == "OSError"
    assert execution.status() == "failed"
    monkeypatch.setattr(fail, "function", lambda words: 5)
    assert execution.resume()
    queue.run_all()
    assert execution.result(timeout=1) == 7
    assert calls == [("add", 1, 1)]


def test_a_step_that_runs_on_after_a_resume_answers_nothing(queue, flow, caplog):
    """D3: its command was forgotten; what was issued anew under its number answers."""
    resumed: list[str] = []

    @task(name="turns.late")
    def late() -> str:
        if not resumed:
            resumed.append(current_run().request.id)
            execution.terminate()
            execution.resume()
            queue.step()
        return current_run().request.id

    async def code() -> str:
        return await late.step()

    execution = started(flow(code))
    with caplog.at_level(logging.INFO):
        queue.run_all()
    catalogue.remove(late)

    assert execution.result(timeout=1) not in resumed
    assert "an answer of step turns.flow/k/1 does not count" in caplog.text


def test_a_step_that_waits_at_a_resume_does_not_run(queue, flow):
    """D3: its command was forgotten; it runs once, as it was issued anew."""

    async def code() -> int:
        return await add.step(1, 2)

    execution = started(flow(code))
    queue.step()
    waits = queue.claim()
    execution.terminate()
    execution.resume()
    queue.step()

    assert queue.run(waits).reason is Reason.DUPLICATE
    queue.run_all()
    assert execution.result(timeout=1) == 3
    assert calls == [("add", 1, 2)]


def test_a_child_that_goes_on_after_a_resume_answers_nothing(queue, flow):
    """D14: it was cancelled with its parent; the one that was issued anew answers."""

    @workflow(name="turns.child")
    async def child() -> int:
        return await add.step(1, 2)

    async def code() -> int:
        return await child.step()

    execution = started(flow(code))
    queue.step()
    queue.step()
    execution.terminate()
    execution.resume()
    queue.run_all()
    _late_sweeps(queue)
    _forget([child])

    assert execution.result(timeout=1) == 3


def test_cancelling_is_asyncios(queue, flow):
    """D11: `finally` may await further steps, and the execution is `cancelled`."""

    async def code() -> int:
        async with undo() as undone:
            paid = await add.step(1, 1)
            undone.by(refund, paid)
            return await approval.receive()

    made = flow(code)
    execution = started(made)
    queue.run_all()
    made.cancel("k", "customer called").raise_for_error()
    queue.run_all()

    assert calls == [("add", 1, 1), ("refund", 2)]
    assert (execution.status(), execution.why()) == ("cancelled", "customer called")
    with pytest.raises(ExecutionError, match="cancelled"):
        execution.result(timeout=1)
    assert made.cancel("k").ok
    queue.run_all()
    assert execution.status() == "cancelled"


def test_a_cancellation_before_the_start_is_seen(queue, flow):
    """D15: as a signal, it may come first."""

    async def code() -> int:
        return await add.step(1, 1)

    made = flow(code)
    made.cancel("k")
    queue.run_all()
    assert made.execution("k").status() == "expected"
    execution = started(made)
    queue.run_all()

    assert execution.status() == "cancelled"
    assert calls == []


@pytest.mark.parametrize("reason", [None, 7, "x" * 3_000_000, "\ud800", "a\0b"])
def test_any_reason_ends_an_execution(queue, flow, reason):
    """D11: what people write is cut to what a journal takes, and keeps nothing from ending."""

    async def code() -> None:
        await approval.receive()

    made = flow(code)
    executions = [started(made, key=key) for key in ("method", "execution", "terminated")]
    queue.run_all()
    assert made.cancel("method", reason=reason).ok
    assert executions[1].cancel(reason).ok
    assert executions[2].terminate(reason)
    queue.run_all()

    assert [each.status() for each in executions] == ["cancelled", "cancelled", "terminated"]
    assert all(len(each.why()) < 2_010 for each in executions)
    assert all("None" not in each.why() for each in executions)


def test_a_reason_that_is_too_long_as_recorded_ends_it_all_the_same(queue, flow, journal):
    """D11: other programs write journals, too."""

    async def code() -> None:
        await approval.receive()

    execution = started(flow(code))
    queue.run_all()
    kind, at = EntryKind.CANCEL, time.time()
    name = "x" * 3_000_000
    journal.deliver(execution.id, "turns.flow", kind, name, None, source="s", at=at, timeout=1.0)
    _late(journal)
    _late_sweeps(queue)

    assert execution.status() == "cancelled"


NO_NAMES = [None, 7, "", "\ud800", "x" * 513]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_signal_has_a_name_that_can_be_recorded(name):
    """D15: it is refused where it is declared, not where it is sent."""
    with pytest.raises(DeclarationError, match="the name of a signal is UTF-8 text of 1 to 512"):
        Signal(name, int)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_patch_has_a_name_that_can_be_recorded(queue, flow, name):
    """D13: another could not be found again, or keep each turn from being recorded."""

    async def code() -> None:
        patched(name)

    execution = started(flow(code))
    queue.run_all()

    assert execution.status() == "failed"
    assert "the name of a patch is UTF-8 text of 1 to 512" in execution.why()


def test_an_undo_outside_of_its_block_is_refused(queue, flow):
    """Nothing would ever run it."""
    told = []

    async def code() -> None:
        undone = undo()
        for _ in range(2):
            try:
                undone.by(refund, 1)
            except RuntimeError as exc:
                told.append(str(exc))
            async with undone:
                undone.by(refund, 2)

    execution = started(flow(code))
    queue.run_all()

    assert execution.status() == "completed"
    assert len(told) == 2
    assert "async with undo()" in told[0]


def test_code_that_polls_is_stuck_and_does_not_hold_its_worker(queue, flow, monkeypatch):
    """D16: nothing that it waits for can come while it runs."""
    monkeypatch.setattr("dispatchers.workflows._loop.MAX_CALLBACKS", 2_000)

    async def code(rounds: int) -> int:
        step = add.step(1, 1)
        for _ in range(rounds):
            if step.done():
                break
            await asyncio.sleep(0)
        return await step

    made = flow(code)
    patient, polling = started(made, 1_000, key="patient"), started(made, 10**9, key="polling")
    queue.run_all()

    assert patient.result(timeout=1) == 2
    assert polling.status() == "stuck"
    assert "in place of `asyncio.sleep(0)` in a loop" in polling.why()


def test_a_terminated_execution_runs_no_code(queue, flow):
    """D11: `terminate` ends it where it is."""

    async def code() -> int:
        try:
            return await approval.receive()
        finally:
            await note.step("never")

    execution = started(flow(code))
    queue.run_all()
    assert execution.terminate("gone wrong")
    queue.run_all()

    assert execution.status() == "terminated"
    assert calls == []
    assert not execution.terminate()


def test_signals_come_in_order_and_once(queue, flow, journal):
    """D15: before the start, twice, and one after the other."""

    async def code() -> list[int]:
        return [await approval.receive() for _ in range(3)]

    made = flow(code)
    request = approval.send(made, "k", 1).request
    queue.run_all()
    queue.forget()
    queue.dispatch(request)
    approval.send(made, "k", 2)
    execution = started(made)
    approval.send(made, "k", 3)
    queue.run_all()

    assert execution.result(timeout=1) == [1, 2, 3]


def test_a_signal_of_another_type_is_refused_at_its_sender(queue, flow):
    """C5: what the workflow could not read is not sent."""

    async def code() -> int:
        return await approval.receive()

    response = approval.send(flow(code), "k", "yes")  # type: ignore[arg-type]

    assert not response.ok
    assert response.error.category == "invalid"
    assert "signal 'approval'" in response.error.message
    assert queue.waiting == ()


def test_a_signal_of_another_type_is_said_at_its_receiver(queue, flow):
    """C5: sent by another version, it is no value of another type."""

    async def code() -> int:
        return await approval.receive()

    made = flow(code)
    execution = started(made)
    Signal("approval", str).send(made, "k", "yes")
    queue.run_all()

    assert execution.status() == "stuck"
    assert "approval" in execution.why()


def test_a_signal_that_is_too_large_is_a_dead_letter_with_words(queue, flow):
    """D16: it is not lost in silence."""

    async def code() -> str:
        return await large.receive()

    large = Signal("large", str)
    large.send(flow(code), "k", "x" * (1 << 20))
    (outcome,) = queue.run_all()

    assert outcome.action is Action.DEAD
    assert "bytes" in queue.dead[0].error.message


def test_a_child_is_an_execution(queue, flow):
    """D14: its end answers its parent."""

    @workflow(name="turns.child")
    async def child(number: int) -> int:
        return await add.step(number, 1)

    async def code(number: int) -> int:
        named = child.options(idempotency_key="named")
        return await child.step(number) + await named.step(number)

    execution = started(flow(code), 3)
    queue.run_all()
    _forget([child])

    assert execution.result(timeout=1) == 8
    assert child.execution("named").result(timeout=1) == 4


def test_a_child_that_fails_fails_as_a_step(queue, flow):
    """D14: failure goes up."""

    @workflow(name="turns.child")
    async def child() -> int:
        return await fail.step("no room")

    async def code() -> str:
        try:
            await child.step()
        except StepError as exc:
            return str(exc.exception_type)
        return "no"

    execution = started(flow(code))
    queue.run_all()
    _forget([child])

    assert execution.result(timeout=1) == "OSError"


def test_cancelling_goes_down(queue, flow):
    """D11, D14: a child is cancelled with its parent, and with what awaits it."""

    @workflow(name="turns.child")
    async def child(number: int) -> int:
        try:
            return await approval.receive()
        finally:
            await note.step(f"cleaned {number}")

    async def code() -> str:
        try:
            async with asyncio.timeout(0.01):
                await child.options(idempotency_key="timed").step(1)
        except TimeoutError:
            pass
        await child.options(idempotency_key="other").step(2)
        return "no"

    made = flow(code)
    execution = started(made)
    queue.run_all()
    time.sleep(0.05)
    _sweep.sweep()
    queue.run_all()
    assert child.execution("timed").status() == "cancelled"
    assert child.execution("other").status() == "running"
    execution.cancel("enough").raise_for_error()
    queue.run_all()
    _late_sweeps(queue)
    _forget([child])

    assert execution.status() == "cancelled"
    assert child.execution("other").status() == "cancelled"
    assert sorted(calls) == [("note", "cleaned 1"), ("note", "cleaned 2")]


def _late_sweeps(queue: MemoryDispatcher) -> None:
    for _ in range(3):
        _sweep.sweep()
        queue.run_all()


def test_a_child_under_a_key_that_is_taken_fails(queue, flow):
    """D14: also one that would be its own ancestor; nothing waits for ever."""

    async def code(depth: int) -> str:
        try:
            await made.options(idempotency_key="k").step(depth + 1)
        except StepError as exc:
            return f"{exc.category}: {exc.message}"
        return "no"

    made = flow(code)
    execution = started(made, 0)
    queue.run_all()

    assert execution.result(timeout=1).startswith("conflict: ")


def test_a_child_under_a_key_of_another_execution_fails(queue, flow):
    """D14: it says that the key is taken."""

    @workflow(name="turns.child")
    async def child(number: int) -> int:
        return number

    async def code() -> str:
        try:
            await child.options(idempotency_key="taken").step(1)
        except StepError as exc:
            return f"{exc.category}: {exc.message}"
        return "no"

    started(child, 1, key="taken")
    queue.run_all()
    queue.forget()
    execution = started(flow(code))
    queue.run_all()
    _forget([child])

    words = execution.result(timeout=1)
    assert words.startswith("conflict: ")
    assert "idempotency_key" in words


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("finished", [False, True])
def test_a_step_under_a_key_of_other_work_fails(queue, flow, number, finished):
    """C10: of equal and of other arguments, which waits or has run; it answers no step."""
    add.options(idempotency_key="taken").dispatch(1, 1).raise_for_error()
    if finished:
        queue.run_all()

    async def code() -> str:
        try:
            return str(await add.options(idempotency_key="taken").step(number, 1))
        except StepError as exc:
            return exc.category

    execution = started(flow(code))
    queue.run_all()

    assert execution.result(timeout=1) == "conflict"


def test_a_step_that_is_given_up_does_not_run(queue, flow, journal):
    """D11: steps that have not begun are dropped."""

    async def code() -> str:
        try:
            async with asyncio.timeout(0.01):
                await add.step(1, 1)
        except TimeoutError:
            return await approval_text()
        return "no"

    async def approval_text() -> str:
        return str(await approval.receive())

    made = flow(code)
    execution = started(made)
    queue.step()
    waiting = queue.claim()
    assert waiting is not None
    time.sleep(0.05)
    _sweep.sweep()
    queue.run_all()
    queue.run(waiting)
    approval.send(made, "k", 9)
    queue.run_all()

    assert execution.result(timeout=1) == "9"
    assert calls == []


def test_restart_begins_anew_and_keeps_what_was_not_received(queue, flow, journal):
    """B.3: the journal stays short, numbers go on, signals are kept."""

    async def code(page: int) -> int:
        if page == 3:
            return await approval.receive()
        await add.step(page, 1)
        raise restart(page + 1)

    made = flow(code)
    approval.send(made, "k", 9)
    execution = started(made, 0)
    _late_sweeps(queue)

    assert execution.result(timeout=1) == 9
    assert calls == [("add", 0, 1), ("add", 1, 1), ("add", 2, 1)]
    kinds = [each.kind for each in journal.entries(execution.id, timeout=1.0)]
    assert kinds == [EntryKind.SIGNAL]


def test_restart_goes_on_with_the_latest_version(queue, flow):
    """D13: an endless workflow would never leave its first version otherwise."""

    async def first(number: int) -> int:
        raise restart(number=number + 1)

    async def second(number: int, steps: int = 1) -> int:
        return await add.step(number, steps)

    execution = started(flow(first), 1)
    start = queue.claim()
    latest = flow(second, version=2)
    latest.version(1)(first)
    _tasks.current_journal().begin(_start_of(start, version=1), timeout=1.0)
    queue.run(start)
    queue.run_all()

    assert execution.result(timeout=1) == 3
    assert calls == [("add", 2, 1)]
    assert execution._record().version == 2


def test_restart_with_arguments_that_the_latest_version_lacks(queue, flow):
    """D13: it raises where they are given, and the execution can be resumed."""

    async def first(number: int) -> int:
        raise restart(number=number + 1)

    async def second(page: str) -> str:
        return page

    made = flow(second, version=2)
    made.version(1)(first)
    made.options(idempotency_key="k").dispatch(page="1").raise_for_error()
    start = queue.claim()
    assert start is not None
    _tasks.current_journal().begin(_start_of(start, version=1, number=1), timeout=1.0)
    queue.run(start)
    queue.run_all()

    assert made.execution("k").status() == "failed"
    assert "PayloadError" in made.execution("k").why()


def _start_of(delivery: Any, version: int, **arguments: Any) -> Start:
    """The start of an execution that has begun on another version."""
    request = delivery.request
    if arguments:
        request = request.replace(payload=arguments)
    name = f"{request.task}/{request.key}"
    return Start(name, request.task, version, "default", None, b"{}", encode(request), time.time())


def test_a_dispatch_within_is_held_and_leaves_once(queue, flow):
    """D6: it leaves with the turn, also one that ends the execution."""

    async def code() -> str:
        response = note.dispatch("hello")
        return response.status.value

    execution = started(flow(code))
    queue.run_all()

    assert execution.result(timeout=1) == "deferred"
    assert calls == [("note", "hello")]


def test_a_dispatch_within_has_the_id_of_what_leaves(queue, flow):
    """D6: also where `resume` has it issued anew, or has kept it; the same at each replay."""
    left: list[str] = []

    @task(name="turns.sent")
    def sent() -> None:
        left.append(current_run().request.id)

    async def code() -> list[str]:
        first = sent.dispatch().request_id
        await approval.receive()
        second = sent.dispatch().request_id
        await approval.receive()
        return [first, second]

    made = flow(code)
    execution = started(made)
    for number in range(2):
        queue.run_all()
        execution.terminate()
        execution.resume()
        live.clear()
        approval.send(made, "k", number)
    queue.run_all()
    catalogue.remove(sent)

    assert execution.result(timeout=1) == left
    assert len(set(left)) == 2


def test_the_trace_of_the_start_goes_with_turns_and_steps(queue, flow):
    """D20: each is linked to the start."""
    seen = []

    async def code() -> int:
        return await add.step(1, 1)

    made = flow(code)
    headers = {"traceparent": "00-1-2-01"}
    made.options(idempotency_key="k", headers=headers).dispatch().raise_for_error()
    while (waiting := queue.waiting) and queue.step():
        seen += [(each.task, each.headers["traceparent"]) for each in waiting]

    assert seen == [(name, "00-1-2-01") for name in ("turns.flow", "turns.add", "turns.flow/turn")]


def test_steps_of_a_broker_that_is_down_leave_later(queue, flow, journal, monkeypatch):
    """K9: it never fails for that."""

    async def code() -> int:
        return await add.step(1, 1)

    execution = started(flow(code))
    start = queue.claim()
    assert start is not None
    with override(default=MemoryDispatcher(capacity=1)) as _:
        note.dispatch("fills it")
        queue.run(start)
        (unsent,) = journal.unsent(execution.id, timeout=1.0)
        assert unsent.next_try > time.time()
        assert execution.status() == "running"
    held = journal._executions[execution.id]
    held.unsent = {n: u._replace(next_try=0.0) for n, u in held.unsent.items()}
    _late_sweeps(queue)

    assert execution.result(timeout=1) == 2


def test_what_a_process_without_memory_took_leaves_once_more(queue, flow, journal):
    """K24: steps and children, until they are answered; a plain dispatch leaves once."""

    async def code() -> int:
        note.dispatch("sent")
        return await add.step(1, 1)

    execution = started(flow(code))
    start = queue.claim()
    with override(default=MemoryDispatcher()):  # its process dies
        queue.run(start)
    (unsent,) = journal.unsent(execution.id, timeout=1.0)
    assert unsent.command.name == "turns.add"
    assert unsent.next_try > time.time() + 50
    held = journal._executions[execution.id]
    held.unsent = {n: u._replace(next_try=0.0) for n, u in held.unsent.items()}
    _late_sweeps(queue)

    assert execution.result(timeout=1) == 2
    assert journal.unsent(execution.id, timeout=1.0) == ()
    assert not queue.waiting


def test_it_leaves_less_and_less_often(queue, flow, journal, monkeypatch):
    """K24: a queue with hours of work in it does not fill with copies."""

    async def code() -> int:
        return await add.step(1, 1)

    execution = started(flow(code))
    start = queue.claim()
    with override(default=MemoryDispatcher()):
        queue.run(start)
        monkeypatch.setattr("dispatchers._runtime.clock.time", lambda: time.time() + 7200)
        _hand_over.hand_over_due(journal, journal.look(execution.id, timeout=1.0))
        (unsent,) = journal.unsent(execution.id, timeout=1.0)

    assert unsent.next_try > time.time() + 7200 + 7100


@pytest.mark.parametrize("durable", [False, True])
def test_a_dispatcher_that_keeps_its_work_is_given_it_once(queue, flow, journal, durable):
    """K24: what survives a death of the other side is not handed over again."""

    class Kept(MemoryDispatcher):
        capabilities = MemoryDispatcher.capabilities.model_copy(update={"durable": durable})

    async def code() -> int:
        return await add.step(1, 1)

    execution = started(flow(code))
    start = queue.claim()
    with override(default=Kept()):
        queue.run(start)

    assert bool(journal.unsent(execution.id, timeout=1.0)) is not durable


def test_a_step_under_the_claim_of_a_killed_run_is_tried_again(flow, journal):
    """K11: where a step runs in its turn, nothing else would deliver it again."""

    async def code() -> int:
        return await add.step(1, 1)

    claimed = (f"{flow(code).name}/k/1", "a run that was killed")
    journal.claims.claim(*claimed, 60.0)
    with override(default="inline"):
        execution = started(flow(code))
        before = execution.status()
        journal.claims.release(*claimed)
        held = journal._executions[execution.id]
        held.unsent = {n: u._replace(next_try=0.0) for n, u in held.unsent.items()}
        _sweep.sweep()

    assert before == "running"
    assert execution.result(timeout=1) == 2


class Small(MemoryDispatcher):
    """Takes small envelopes only."""

    capabilities = MemoryDispatcher.capabilities.model_copy(update={"max_size": 400})


REFUSALS = {
    "too_large": ("small", {}),
    "unsupported": ("here", {"delay": timedelta(days=1)}),
}


@pytest.mark.parametrize("category", REFUSALS)
def test_what_is_refused_for_good_fails_in_the_workflow(journal, flow, category):
    """D12: it would be refused again for ever; the workflow decides what follows."""
    alias, options = REFUSALS[category]

    @workflow(name="turns.child", dispatcher=alias)
    async def child(words: str) -> int:
        return await add.step(1, 1)

    async def code() -> list[str]:
        step = fail.options(dispatcher=alias, **options).step("x" * 400)
        awaited = [step, child.options(**options).step("x" * 400)]
        failures = await asyncio.gather(*awaited, return_exceptions=True)
        return [f"{each.category} {each.attempts}" for each in failures]

    with _refusing() as queue:
        execution = started(flow(code, dispatcher="main"))
        queue.run_all()
    _forget([child])

    assert execution.result(timeout=1) == [f"{category} 0"] * 2


def test_what_was_wrongly_deployed_leaves_once_that_is_mended(queue, flow, journal):
    """K9: a worker without the dispatcher of a step fails nothing; the next one hands it over."""

    async def code() -> int:
        return await add.options(dispatcher="late").step(1, 1)

    execution = started(flow(code))
    queue.run_all()  # not by `default`, either: only an alias that the task declares may fall back
    status = execution.status()
    held = journal._executions[execution.id]
    held.unsent = {n: u._replace(next_try=0.0) for n, u in held.unsent.items()}
    with override(late=queue):
        _late_sweeps(queue)

    assert status == "running"
    assert execution.result(timeout=1) == 2


def test_an_alias_that_a_step_declares_may_fall_back(queue, flow):
    """As in a dispatch: a library names one, and the host has `default` only."""

    @task(name="turns.mailed", dispatcher="mail")
    def mailed(number: int) -> int:
        return number

    async def code() -> int:
        return await mailed.step(3)

    execution = started(flow(code))
    queue.run_all()
    catalogue.remove(mailed)

    assert execution.result(timeout=1) == 3


@pytest.mark.parametrize("category", REFUSALS)
def test_a_dispatch_that_is_refused_for_good_is_left_out(flow, journal, caplog, category):
    """D10: nothing awaits it; the log says so, and the execution is not held up."""
    alias, options = REFUSALS[category]

    async def code() -> None:
        note.options(dispatcher=alias, **options).dispatch("x" * 400)

    with _refusing() as queue:
        execution = started(flow(code, dispatcher="main"))
        queue.run_all()

    assert execution.status() == "completed"
    assert not journal.unsent(execution.id, timeout=1.0)
    assert f"a dispatch of turns.note is refused and left out ({category})" in caplog.text


@contextmanager
def _refusing() -> Iterator[Any]:
    """A deployment without a default: another alias is none."""
    with override({"target": "x", "targets": {"x": {"main": "memory", "here": "inline"}}}):
        with override(small=Small()):
            yield get_dispatcher("main")


def test_a_thousand_steps_at_once(queue, flow, journal):
    """D16, B.9b: turns read the answers in batches, as they come."""

    async def code() -> int:
        return sum(await asyncio.gather(*[add.step(n, 0) for n in range(1_000)]))

    execution = started(flow(code))
    queue.run_all()

    assert execution.result(timeout=1) == 499_500
    record = journal.look(execution.id, timeout=1.0)
    assert record.fence < 1_000


def test_too_many_open_commands_are_stuck_with_words(queue, flow):
    """D16: a limit is a refusal."""

    async def code() -> int:
        return sum(await asyncio.gather(*[add.step(n, 0) for n in range(1_001)]))

    execution = started(flow(code))
    queue.run_all()

    assert execution.status() == "stuck"
    assert "1000 are allowed" in execution.why()
    assert calls == []


def test_a_result_that_is_too_large_fails_its_step(queue, flow, monkeypatch):
    """D16: with the cure."""

    async def code() -> str:
        try:
            return await large.step()
        except StepError as exc:
            return f"{exc.category}"

    @task(name="turns.large")
    def large() -> str:
        return "x" * (1 << 20)

    execution = started(flow(code))
    queue.run_all()

    assert execution.result(timeout=1) == "too_large"


def test_local_steps_run_once(queue, flow):
    """T3: each is recorded with its answer, in one commit."""

    async def code() -> int:
        return sum([await local(lambda: calls.append(1) or 3) for _ in range(5)])

    execution = started(flow(code))
    queue.run_all()

    assert execution.result(timeout=1) == 15
    assert calls == [1] * 5


def test_state_is_seen_at_once(queue, flow):
    """B.3: `publish` is readable from outside while the execution waits."""

    async def code() -> int:
        publish(stage="waiting")
        return await approval.receive()

    execution = started(flow(code))
    assert (execution.status(), execution.state()) == ("unknown", None)
    queue.run_all()

    assert execution.state() == {"stage": "waiting"}
    with pytest.raises(TimeoutError, match="running"):
        execution.result(timeout=0)


class SoftLimitError(Exception):
    """As Celery's and RQ's, which a signal raises in the main thread: an `Exception`."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Interrupts the run that is under way, as a worker does at its time limit."""

    def raises(number: int, frame: object) -> None:
        delivery.interrupted()
        raise SoftLimitError

    before = signal.signal(signal.SIGUSR1, raises)
    yield lambda: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def interrupted(queue: MemoryDispatcher, times: int = 1) -> list[Outcome]:
    """Run turns under a worker that interrupts, and let them come again."""
    outcomes = []
    for _ in range(times):
        found = queue.claim()
        assert found is not None
        outcomes.append(run_envelope(found.body, settings=RunSettings(interrupts=True)))
        queue.abandon(found)
        found.work.deliveries = 1
    return outcomes


@pytest.mark.parametrize("place", ["code", "local", "replay"])
def test_a_time_limit_of_the_worker_is_no_failure_of_the_code(
    queue, flow, journal, interrupt, place
):
    """D4: code that takes it for a failure of its own changes nothing: the turn comes again."""
    left = [] if place == "replay" else [1]

    def stop() -> None:
        if left:
            left.pop()
            interrupt()

    async def code() -> str:
        first = await add.step(1, 1)
        try:
            if place == "local":
                await local(stop)
            else:
                stop()
        except Exception:  # noqa: BLE001 - as code that means to go on
            await note.step("it failed")
        return f"went on after {await add.step(first, 1)}"

    execution = started(flow(code))
    queue.step()
    queue.step()
    if place == "replay":
        queue.step()
        queue.step()
        live.clear()
        left.append(1)
    before = journal.entries(execution.id, timeout=1.0)
    (outcome,) = interrupted(queue)

    assert outcome.exception is not None
    assert type(outcome.exception) in (TimeLimitError, SoftLimitError)
    assert journal.entries(execution.id, timeout=1.0) == before
    assert execution.status() == "running"
    queue.run_all()
    assert execution.result(timeout=1) == "went on after 3"
    assert [name for name, *_ in calls] == ["add", "add"]


def test_a_time_limit_in_a_step_within_the_turn_is_no_failure_of_it(
    queue, flow, journal, interrupt
):
    """D3: it runs in the call that hands it over, under the limit of the turn; it runs again."""
    left = [1]

    @task(name="turns.here", dispatcher="here")
    def here() -> int:
        if left:
            left.pop()
            interrupt()
        return 3

    async def code() -> int:
        return await here.step()

    with override(default=queue, here="inline"):
        execution = started(flow(code))
        interrupted(queue)
        answers = [entry.kind for entry in journal.entries(execution.id, timeout=1.0)]
        queue.run_all()
        held = journal._executions[execution.id]
        held.unsent = {n: u._replace(next_try=0.0) for n, u in held.unsent.items()}
        _late_sweeps(queue)
    catalogue.remove(here)

    assert answers == [EntryKind.STEP]
    assert execution.result(timeout=1) == 3


def test_a_turn_that_is_interrupted_each_time_is_stuck(queue, flow, interrupt):
    """D16: it would come again for ever; the sentence says what to do."""

    async def code() -> None:
        with suppress(Exception):
            interrupt()

    execution = started(flow(code))
    interrupted(queue, times=5)

    assert execution.status() == "stuck"
    assert "5 turns in a row were interrupted at their time limit" in execution.why()


class Killed(BaseException):
    """Ends a turn as the death of its process does."""


def test_a_turn_that_kills_its_worker_again_and_again_is_stuck(queue, flow, journal, monkeypatch):
    """D16: the fifth worker does not run it, nor one that starts later; `resume` begins anew."""

    async def code() -> int:
        return await add.step(1, 1)

    def killed(*args: Any) -> None:
        raise Killed

    execution = started(flow(code))
    _late(journal)
    journal._lease = 0.0
    with monkeypatch.context() as patch:
        patch.setattr(_turn._Taken, "_goes_on", killed)
        patch.setattr(_turn._Taken, "fail", lambda *args: None)
        for _ in range(4):
            assert len(queue.run_all()) == 1
            assert _sweep.sweep(limit=1) == 1
        queue.run_all()

    assert execution.status() == "stuck"
    assert "4 workers in a row" in execution.why()
    assert _sweep.retry_stuck() == 1
    queue.run_all()
    assert execution.status() == "stuck"
    assert execution.resume()
    queue.run_all()
    assert execution.result(timeout=1) == 2


def test_a_worker_that_dies_when_it_tries_stuck_code_again(queue, flow, journal, monkeypatch):
    """K19: the sweep brings the next try; no other worker need start."""

    async def code(number: int) -> int:
        return await add.step(number, 1) + await approval.receive()

    async def changed(number: int) -> int:
        return await add.step(number, 2) + await approval.receive()

    execution = started(flow(code), 3)
    queue.run_all()
    live.clear()
    approval.send(flow(changed), "k", 9)
    queue.run_all()
    assert execution.status() == "stuck"
    flow(code)
    _late(journal)
    journal._lease = 0.0

    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_turn._Taken, "_goes_on", killed)
        patch.setattr(_turn._Taken, "fail", lambda *args: None)
        assert _sweep.retry_stuck() == 1
        queue.run_all()
    assert execution.status() == "stuck"

    assert _sweep.sweep(limit=1) == 1
    queue.run_all()
    assert execution.result(timeout=1) == 13


def test_an_error_of_ours_gives_the_turn_back(queue, flow, monkeypatch, journal):
    """K4: a sweep brings the next turn, which goes on from what is recorded."""

    async def code() -> int:
        return await add.step(1, 1)

    execution = started(flow(code))

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(_turn._Taken, "_goes_on", broken)
        (outcome,) = queue.run_all()
    assert outcome.action is Action.DEAD
    _late(journal)
    _late_sweeps(queue)

    assert execution.result(timeout=1) == 2


def test_errors_of_ours_again_and_again_leave_it_stuck(queue, flow, monkeypatch, journal):
    """D16: with words, and not for ever in the log."""

    async def code() -> int:
        return await add.step(1, 1)

    execution = started(flow(code))

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    _late(journal)
    with monkeypatch.context() as patch:
        patch.setattr(_turn._Taken, "_goes_on", broken)
        for _ in range(5):
            queue.run_all()
            _sweep.sweep(limit=1)

    assert execution.status() == "stuck"
    assert "5 turns in a row raised ZeroDivisionError" in execution.why()
    assert _sweep.sweep() == 0
    execution.resume()
    queue.run_all()
    assert execution.result(timeout=1) == 2


def test_a_deleted_execution_takes_no_turn(queue, flow, journal):
    """A message for what was forgotten does nothing."""

    async def code() -> int:
        return await add.step(1, 1)

    started(flow(code))
    queue.step()
    journal._executions.clear()

    assert [each.reason for each in queue.run_all()] == [Reason.DUPLICATE]


def test_without_a_journal_a_start_is_handed_back(queue, flow, monkeypatch):
    """D19: what could not be recorded does not begin."""

    async def code() -> int:
        return 1

    def refuse() -> Any:
        raise ConfigurationError("no journal: write workflows = ...")

    made = flow(code)
    monkeypatch.setattr(_tasks, "current_journal", refuse)
    started(made)
    (outcome,) = queue.run_all()

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.NO_JOURNAL)
    assert "workflows = " in outcome.error.message


@pytest.mark.parametrize(
    ("options", "words"),
    [({"version": 0}, "from 1"), ({"version": True}, "from 1"), ({"name": "a b"}, "task name")],
)
def test_a_workflow_that_cannot_work_is_refused(flow, options, words):
    """The declaration says why."""

    async def code() -> int:
        return 1

    with pytest.raises(DeclarationError, match=words):
        flow(code, **options)


def test_a_sync_workflow_is_refused(flow):
    """It could not await its steps."""

    def code() -> int:
        return 1

    with pytest.raises(DeclarationError, match="async def"):
        flow(code)


def test_two_versions_of_one_number_are_refused(flow):
    """The executions on it would not know which is theirs."""

    async def code() -> int:
        return 1

    made = flow(code)
    with pytest.raises(DeclarationError, match="version 1"):
        made.version(1)(code)


def test_a_key_of_ten_kibibytes_is_refused(queue, flow):
    """A key has 512 characters at most."""

    async def code() -> int:
        return 1

    response = flow(code).options(idempotency_key="k" * 10_240).dispatch()

    assert response.error.category == "invalid"


def test_live_code_is_closed_when_there_is_no_room():
    """D21: the cache is bounded, and closes what it forgets."""

    class Replay:
        closed = False

        def close(self) -> None:
            self.closed = True

    from dispatchers.workflows._cache import Live

    cache, journal = LiveCache(executions=2, size=100), MemoryJournal()
    lives = [Live(journal, Replay(), 0, size=40) for _ in range(3)]  # type: ignore[arg-type]
    for number, each in enumerate(lives):
        cache.put(str(number), each)

    assert [each.replay.closed for each in lives] == [True, False, False]
    lives[1].size = 40
    assert cache.take("1", MemoryJournal()) is None
    assert lives[1].replay.closed
    assert cache.take("2", journal) is lives[2]
    assert len(cache) == 0
    assert Status.RUNNING == 1


def test_a_turn_of_what_the_journal_does_not_have_is_told(queue, flow, caplog):
    """D2: another process may name another journal, and nothing else would say so."""

    async def code() -> int:
        return await approval.receive()

    made = flow(code)
    made.turns.dispatch(execution="turns.flow/elsewhere").raise_for_error()
    queue.run_all()
    assert "a turn of turns.flow/elsewhere has no effect: the journal" in caplog.text
    caplog.clear()
    approval.send(made, "early", 1).raise_for_error()
    queue.run_all()

    assert made.execution("early").status() == "expected"
    assert "no effect" not in caplog.text
