"""The sweep: what no queue knows is woken, by a thread of each worker or by a call."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dispatchers import ConfigurationError, override, task
from dispatchers._journal.memory import MemoryJournal
from dispatchers._journal.values import Start
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.testing.processes import wait_until
from dispatchers.workflows import _sweep, sweep, workflow
from dispatchers.workflows._sweep import Sweeper, sweep_in_worker


@workflow(name="sweeps.flow")
async def flow() -> None: ...


@task(name="sweeps.leave")
def leave() -> None:
    raise SystemExit


@workflow(name="sweeps.left")
async def left() -> str:
    try:
        await leave.step()
    except Exception as exc:  # noqa: BLE001 - the test looks at it
        return str(exc)
    return "no"


@pytest.fixture
def journal(monkeypatch) -> MemoryJournal:
    journal = MemoryJournal()
    monkeypatch.setattr(_sweep, "current_journal", lambda: journal)
    return journal


@pytest.fixture
def queue():
    queue = MemoryDispatcher()
    with override(default=queue):
        yield queue


def begin(journal: MemoryJournal, key: str, name: str = "sweeps.flow", alias: str = "default"):
    start = Start(f"{name}/{key}", name, 1, alias, "flows", b'{"a":"b"}', b"{}", 0.0)
    assert journal.begin(start, timeout=1.0).first
    # As if it were long ago: its wake-up counts as lost.
    journal._executions[start.execution].waked_at = None


def test_a_sweep_wakes_each_where_it_belongs(journal, queue):
    """D18: through its dispatcher, in its queue, with its headers."""
    other = MemoryDispatcher()
    with override(default=queue, other=other):
        for number in range(250):
            begin(journal, str(number), alias="other" if number % 2 else "default")
        assert sweep() == 250

    assert (len(queue.waiting), len(other.waiting)) == (125, 125)
    wake = other.waiting[0]
    assert (wake.task, wake.queue, wake.headers) == ("sweeps.flow/turn", "flows", {"a": "b"})


def test_a_sweep_has_a_limit(journal, queue):
    """The rest is for the next one."""
    for number in range(10):
        begin(journal, str(number))

    assert (sweep(limit=4), len(queue.waiting)) == (4, 4)


def test_what_is_not_imported_here_is_left_to_others(journal, queue, caplog):
    """C11: a wake-up that no worker can follow would be doubled by each sweep."""
    begin(journal, "1", "sweeps.gone")

    assert sweep() == 0
    assert queue.waiting == ()
    assert "sweeps.gone" in caplog.text


def test_a_dispatcher_that_is_gone_holds_up_no_other(journal, queue, monkeypatch, caplog):
    """Its executions wait for the next sweep."""
    pytest.importorskip("celery")
    begin(journal, "1", alias="default")
    begin(journal, "2", alias="broken")
    with override(default=queue, broken={"backend": "celery", "url": "nowhere"}):
        assert sweep() == 1

    assert [each.payload["execution"] for each in queue.waiting] == ["sweeps.flow/1"]


def test_the_thread_sweeps_now_and_then_and_at_instants(journal, queue):
    """D8: a timer of this process does not wait for the interval."""
    sweeper = Sweeper(interval=3600.0)
    sweeper.start()
    sweeper.start()
    begin(journal, "1")
    sweeper.look_at(time.time() + 0.01)
    wait_until(lambda: len(queue.waiting) == 1, "nothing was woken at the instant")
    sweeper.stop()
    names = [each.name for each in threading.enumerate()]

    assert "dispatchers-sweep" not in names
    quick = Sweeper(interval=0.01)
    begin(journal, "2")
    quick.start()
    wait_until(lambda: len(queue.waiting) >= 2, "nothing was woken by the interval")
    quick.stop()


def test_a_journal_that_is_down_ends_no_sweeping(journal, queue, monkeypatch, caplog):
    """K15: it is swept again later."""
    calls: list[int] = []

    def due(**options: Any) -> list[Any]:
        calls.append(1)
        raise ZeroDivisionError if len(calls) == 1 else ConfigurationError("changed")

    monkeypatch.setattr(journal, "due", due)
    sweeper = Sweeper(interval=0.005)
    sweeper.start()
    wait_until(lambda: len(calls) >= 3, "it was not swept again")
    sweeper.stop()

    assert "ZeroDivisionError" in caplog.text


def test_a_journal_in_memory_is_no_journal_of_several_processes(journal):
    """The start of such a worker is refused with the cure."""

    class Far:
        alias, name, journal = "default", "celery", None

    with pytest.raises(ConfigurationError, match=r'workflows = "sqlite:'):
        sweep_in_worker(Far())  # type: ignore[arg-type]


def test_a_step_that_ends_its_thread_has_failed():
    """D12: `SystemExit` in a step is a failure, and nothing waits for ever."""
    with override(default="thread"):
        left.options(idempotency_key="k").dispatch().raise_for_error()
        assert "SystemExit" in left.execution("k").result(timeout=30)
