"""`executions` on real ones: a worker runs them, between two commands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import SHOP, Shop

FLOWS = """
import asyncio
from datetime import timedelta
from pathlib import Path

from dispatchers import StepError, task
from dispatchers.workflows import Signal, now, undo, workflow

approval = Signal("approval", bool)

@task(name="runs.note")
def note(what: str) -> None:
    with Path("notes.txt").open("a") as file:
        file.write(f"{what}\\n")

@task(name="runs.charge")
def charge(order: int) -> int:
    if not Path("mended").exists():
        raise TypeError("no amount")
    return order

@workflow(name="runs.checkout")
async def checkout(order: int) -> int:
    await note.step("before")
    return await charge.step(order)

@workflow(name="runs.astray")
async def astray(order: int) -> str:
    try:
        await note.options(dispatcher="here", delay=timedelta(1)).step("booked")
    except StepError as exc:
        return exc.category
    return "booked"

@workflow(name="runs.sleep")
async def sleep(order: int) -> None:
    await note.step("before")
    await asyncio.sleep(30 * 86400)

@workflow(name="runs.late")
async def late(order: int) -> str:
    late = note.options(expires=now() - timedelta(hours=1), idempotency_key="once")
    try:
        await late.step("booked")
    except StepError as exc:
        await note.options(idempotency_key="once").step("booked")
        return exc.category
    return "booked"

@workflow(name="runs.wait")
async def wait(order: int) -> bool:
    async with undo() as undone:
        await note.step("booked")
        undone.by(note, "unbooked")
        return await approval.receive()
"""


@pytest.fixture
def runs(shop: Shop) -> Shop:
    """The shop with workflows, on a file."""
    shop.module("cli_shop_runs", FLOWS)
    start = SHOP.replace("cli_shop", "cli_shop_runs")
    queue = 'default = { backend = "sqlite", path = "work.sqlite3" }'
    shop.configure(f'{start}{queue}\nhere = "inline"\n')
    return shop


def drained(shop: Shop) -> None:
    done = shop.process("worker", "--drain", "--concurrency", "1")
    assert done.returncode == 0, done.stderr.decode()


def started(shop: Shop, workflow: str, key: str) -> None:
    assert shop("dispatch", workflow, "order=7", "--key", key).code == 0
    drained(shop)


def status(shop: Shop, key: str) -> str:
    found: str = json.loads(shop("executions", "show", key, "--json").out)["status"]
    return found


def test_a_failed_execution_goes_on_where_it_failed(runs: Shop) -> None:
    """D12: resumed after the cause was mended, it repeats what failed, and nothing else."""
    started(runs, "runs.checkout", "order-7")
    failed = status(runs, "order-7")
    Path("mended").touch()

    resumed = runs("executions", "resume", "order-7")
    drained(runs)

    assert (failed, resumed.code, status(runs, "order-7")) == ("failed", 0, "completed")
    assert Path("notes.txt").read_text() == "before\n"


def test_resumed_from_a_number_it_repeats_all_since(runs: Shop) -> None:
    """D12: resumed from its first command, it does everything again."""
    started(runs, "runs.checkout", "order-7")
    Path("mended").touch()

    runs("executions", "resume", "order-7", "--from", "1")
    drained(runs)

    assert status(runs, "order-7") == "completed"
    assert Path("notes.txt").read_text() == "before\nbefore\n"


def test_a_cancelled_execution_undoes_what_it_did(runs: Shop) -> None:
    """D11: a cancelled execution runs its code to the end, a terminated one does not."""
    assert runs("dispatch", "runs.wait", "order=7", "--key", "order-1").code == 0
    started(runs, "runs.wait", "order-2")
    waiting = runs("executions", "journal", "order-1").out

    runs("executions", "cancel", "order-1", "--reason", "he called")
    runs("executions", "terminate", "order-2")
    drained(runs)

    assert waiting.splitlines()[-1] == "waits for a signal"
    assert (status(runs, "order-1"), status(runs, "order-2")) == ("cancelled", "terminated")
    assert Path("notes.txt").read_text() == "booked\nbooked\nunbooked\n"
    assert "cancel: he called" in runs("executions", "journal", "order-1").out


def test_an_export_is_that_of_the_journal(runs: Shop) -> None:
    """What a program of its own exports is what this one reads."""
    started(runs, "runs.wait", "order-1")

    done: subprocess.CompletedProcess[bytes] = runs.process("executions", "export", "order-1")

    found = json.loads(done.stdout)
    assert [each["kind"] for each in found["entries"]] == ["step", "done"]
    assert json.loads(runs("executions", "export", "order-1").out) == found


def test_a_step_that_is_refused_for_good_fails_in_the_workflow(runs: Shop) -> None:
    """D12: where turn and queue are one file, its answer is recorded together with the turn."""
    started(runs, "runs.astray", "order-7")

    assert status(runs, "order-7") == "completed"
    assert '-> "unsupported"' in runs("executions", "journal", "order-7").out


@pytest.mark.timeout(60)
def test_a_worker_that_drains_waits_for_no_timer(runs: Shop) -> None:
    """It ends when nothing is due; the execution goes on with another worker."""
    started(runs, "runs.sleep", "order-7")

    assert status(runs, "order-7") == "running"
    assert "waits for timer until" in runs("executions", "journal", "order-7").out


@pytest.mark.timeout(60)
def test_a_step_that_is_late_fails_and_leaves_its_key(runs: Shop) -> None:
    """D12, C10: the queue would only put it aside; its key is free for another."""
    started(runs, "runs.late", "order-7")

    assert status(runs, "order-7") == "completed"
    assert '-> "expired"' in runs("executions", "journal", "order-7").out
    assert Path("notes.txt").read_text() == "booked\n"
