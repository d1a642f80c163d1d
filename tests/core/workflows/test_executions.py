"""`Execution`: one execution as it looks from outside."""

from __future__ import annotations

import asyncio
import threading
import time
from decimal import Decimal

import pytest
from pydantic import BaseModel

from dispatchers import DispatchStatus, ErrorCategory, PayloadError, override, task
from dispatchers._journal.memory import MemoryJournal
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.workflows import (
    Execution,
    ExecutionError,
    Signal,
    UnknownExecutionError,
    _execution,
    _tasks,
    publish,
    workflow,
)


class Receipt(BaseModel):
    order: int
    total: Decimal


class DeclinedError(Exception):
    pass


go = Signal("go", bool)


@task(name="executions.charge")
def charge(order: int) -> Decimal:
    return Decimal("9.99")


@workflow(name="executions.checkout")
async def checkout(order: int) -> Receipt:
    total = await charge.step(order)
    publish(stage="charged", total=total)
    if not await go.receive():
        raise DeclinedError(f"order {order}")
    return Receipt(order=order, total=total)


@pytest.fixture
def queue(monkeypatch):
    journal = MemoryJournal()
    from dispatchers._worker import steps

    for module in (_tasks, _execution, steps):
        monkeypatch.setattr(module, "current_journal", lambda: journal)
    monkeypatch.setattr(_tasks, "sweep_here", lambda alias: None)
    queue = MemoryDispatcher()
    with override(default=queue):
        yield queue


@pytest.fixture
def execution(queue):
    """One that waits for its signal."""
    checkout.options(idempotency_key="order-7").dispatch(7).raise_for_error()
    queue.run_all()
    return checkout.execution("order-7")


def test_it_is_read_while_it_waits(execution):
    """Status, state, steps and story, without its code."""
    assert execution.status() == "running"
    assert execution.state() == {"stage": "charged", "total": "9.99"}
    assert execution.steps() == ["executions.charge"]
    assert execution.why() is None
    lines = [str(line) for line in execution.journal()]
    assert any("step executions.charge(order=7)" in line for line in lines)


def test_its_result_has_the_type_of_its_annotation(execution, queue):
    """C5: and is plain JSON for who does not have the code."""
    go.send(checkout, "order-7", True)
    queue.run_all()

    assert execution.result() == Receipt(order=7, total=Decimal("9.99"))
    assert Execution("executions.checkout/order-7").result() == {"order": 7, "total": "9.99"}
    assert asyncio.run(execution.aresult()) == execution.result()


def test_a_failure_is_raised_with_its_words(execution, queue):
    """D12: class and message of the exception, as recorded."""
    go.send(checkout, "order-7", False)
    queue.run_all()

    with pytest.raises(ExecutionError) as found:
        execution.result()
    assert found.value.status == "failed"
    assert found.value.exception_type.endswith("DeclinedError")
    assert found.value.message == "order 7"
    assert str(found.value).startswith("execution 'executions.checkout/order-7' failed: ")


def test_waiting_ends_with_the_execution(execution, queue):
    """A thread that waits is told by the journal."""
    results = []
    thread = threading.Thread(target=lambda: results.append(execution.result(timeout=60)))
    thread.start()
    go.send(checkout, "order-7", True)
    queue.run_all()
    thread.join()

    assert results == [Receipt(order=7, total=Decimal("9.99"))]


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_waiting_has_an_end(execution, timeout):
    """It says how far the execution is."""
    with pytest.raises(TimeoutError, match="is running after"):
        execution.result(timeout=timeout)
    with pytest.raises(TimeoutError, match="is running after"):
        asyncio.run(execution.aresult(timeout=timeout))


def test_one_that_no_worker_has_taken_is_unknown(queue):
    """What reads it raises nothing: the start is on its way, until a worker takes it."""
    execution = checkout.execution("order-7")
    checkout.options(idempotency_key="order-7").dispatch(7).raise_for_error()

    assert (execution.status(), execution.state(), execution.journal()) == ("unknown", None, [])
    assert execution.steps() == []
    assert "no worker has taken its start yet" in (execution.why() or "")
    queue.run_all()
    assert (execution.status(), execution.why()) == ("running", None)


def test_one_that_is_not_there_is_not_steered(queue, monkeypatch):
    """A mistyped key is said, and does not wait for ever."""
    unknown = checkout.execution("order-8")
    with pytest.raises(UnknownExecutionError, match=r"no execution 'executions\.checkout/"):
        unknown.cancel()
    assert (unknown.terminate(), unknown.resume()) == (False, False)
    with pytest.raises(UnknownExecutionError):
        unknown.result(timeout=0)
    monkeypatch.setattr(_execution, "PATIENCE", 0.01)
    with pytest.raises(UnknownExecutionError):
        unknown.result()


def test_one_that_is_not_taken_yet_is_waited_for(queue):
    """The start is on its way: `result` waits for it, too."""
    checkout.options(idempotency_key="late").dispatch(7).raise_for_error()
    go.send(checkout, "late", True)

    def work() -> None:
        time.sleep(0.05)
        queue.run_all()

    thread = threading.Thread(target=work)
    thread.start()
    assert checkout.execution("late").result(timeout=60).order == 7
    thread.join()


def test_it_is_cancelled_terminated_and_resumed(execution, queue):
    """D11, D12: what is done twice says so."""
    assert execution.cancel("enough").ok
    queue.run_all()
    assert (execution.status(), execution.why()) == ("cancelled", "enough")
    assert execution.resume()
    queue.run_all()
    assert execution.status() == "running"
    assert execution.terminate("gone")
    assert not execution.terminate()
    assert (execution.status(), execution.why()) == ("terminated", "gone")
    assert execution.resume()
    assert not execution.resume()


@pytest.mark.parametrize("timeout", [float("nan")])
def test_a_timeout_that_never_passes_is_refused(execution, timeout):
    """NaN compares with nothing: it would wait for ever."""
    with pytest.raises(ValueError, match="NaN"):
        execution.result(timeout=timeout)
    with pytest.raises(ValueError, match="NaN"):
        asyncio.run(execution.aresult(timeout=timeout))


@pytest.mark.parametrize("key", [None, 7, "", "x" * 513, "\ud800"])
def test_a_key_that_no_start_can_have_is_refused(queue, key):
    """D1: what is told to it would be kept for an execution that never begins."""
    responses = [
        go.send(checkout, key, True),
        asyncio.run(go.asend(checkout, key, True)),
        checkout.cancel(key),
        asyncio.run(checkout.acancel(key)),
    ]

    for response in responses:
        assert response.status is DispatchStatus.REJECTED
        assert response.error is not None
        assert response.error.category is ErrorCategory.INVALID
        assert "UTF-8 text of 1 to 512 characters" in response.error.message
    assert queue.waiting == ()
    with pytest.raises(PayloadError, match=r"key of an execution of 'executions\.checkout'"):
        checkout.execution(key)


@pytest.mark.parametrize("key", ["a/b", "line\nbreak", "ä\x00ü", "x" * 512])
def test_a_key_is_any_text(queue, key):
    """D1: slashes and all."""
    checkout.options(idempotency_key=key).dispatch(7).raise_for_error()
    go.send(checkout, key, True).raise_for_error()
    queue.run_all()

    assert checkout.execution(key).result(timeout=0).order == 7


@pytest.mark.parametrize("target", ["executions.checkout", charge])
def test_a_signal_is_sent_to_a_workflow(target):
    """A name or a task is a slip of the code, and said as such."""
    with pytest.raises(TypeError, match=r"<signal 'go'> is sent to a function with @workflow"):
        go.send(target, "order-7", True)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_no_command_resumes_nothing(execution, number):
    """D12: everything would be done again."""
    execution.terminate()

    with pytest.raises(ValueError, match="numbered from 1"):
        execution.resume(number)
    assert execution.status() == "terminated"


@workflow(name="executions.waiter")
async def waiter() -> int:
    return checkout.execution("order-7").result(timeout=0).order


def test_a_workflow_waits_for_no_result(queue):
    """D6: its turn would wait, and a replay might read another; a child is awaited instead."""
    waiter.options(idempotency_key="one").dispatch().raise_for_error()
    queue.run_all()
    execution = waiter.execution("one")

    assert execution.status() == "stuck"
    assert "waits for the result of 'executions.checkout/order-7'" in execution.why()
