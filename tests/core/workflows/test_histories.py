"""Golden histories: executions recorded once, which every later version and Python replays.

`python tests/core/workflows/test_histories.py` records them anew; a difference in `git diff` that
is more than ids and instants means that executions of users would be stuck.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dispatchers import ConfigurationError, StepError, task
from dispatchers.testing.workflows import ReplayError, WorkflowClock, assert_replays
from dispatchers.workflows import (
    Execution,
    Signal,
    local,
    now,
    patched,
    publish,
    random,
    restart,
    undo,
    uuid4,
    workflow,
)
from dispatchers.workflows._export import exported

HERE = Path(__file__).parent / "histories"
approval = Signal("approval", bool)


@task(name="history.charge")
def charge(order: int, amount: Decimal) -> Decimal:
    return amount * 2


@task(name="history.refund")
def refund(amount: Decimal) -> None: ...


@task(name="history.reserve", max_attempts=2)
async def reserve(order: int, sku: str) -> tuple[int, str]:
    return order, sku


def rates() -> dict[str, float]:
    return {"EUR": 1.5, "USD": 1e300}


@workflow(name="history.checkout")
async def checkout(order: int, skus: list[str]) -> dict[str, Any]:
    async with undo() as undone:
        paid = await charge.step(order, amount=Decimal("9.99"))
        undone.by(refund, paid)
        async with asyncio.TaskGroup() as group:
            parcels = [group.create_task(_parcel(order, sku)) for sku in skus]
        publish(stage="waiting", parcels=len(parcels))
        try:
            async with asyncio.timeout(3 * 86400):
                if not await approval.receive():
                    raise ValueError("declined")
        except TimeoutError:
            raise ValueError("too late") from None
    found = await local(rates)
    refund.dispatch(paid)
    chosen = skus[int(random() * len(skus))]
    return {"paid": str(paid), "rates": found, "chosen": chosen, "id": str(uuid4())}


async def _parcel(order: int, sku: str) -> tuple[int, str]:
    await asyncio.sleep(len(sku))
    return await reserve.step(order, sku)


@workflow(name="history.race")
async def race(count: int) -> list[str]:
    pending = {asyncio.ensure_future(reserve.step(each, "x")) for each in range(count)}
    found: list[str] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        found.extend(f"{each.result()[0]}" for each in done)
        if patched("pause"):
            await asyncio.sleep(0.5)
    return found


@workflow(name="history.pages")
async def pages(page: int = 0) -> str:
    await asyncio.sleep(3600)
    if page < 3:
        raise restart(page=page + 1)
    return now().isoformat()


@workflow(name="history.parent")
async def parent() -> list[str]:
    found = []
    for order in range(2):
        try:
            await checkout.options(idempotency_key=f"of-{order}").step(order, ["a"])
        except StepError as exc:
            found.append(f"{exc.exception_type}: {exc.message}")
    return found


def recorded(clock: WorkflowClock) -> Iterator[tuple[str, Execution[Any]]]:
    """Run executions of every kind; each is to be exported as it is then."""
    first = clock.start(checkout, 7, ["a", "bbb", "cc"], key="approved")
    clock.run_until(first.state)
    yield "waiting", first
    clock.send(approval, first, value=True)
    clock.run()
    yield "completed", first
    late = clock.start(checkout, 8, ["a"], key="late")
    clock.run()
    yield "failed", late
    gone = clock.start(checkout, 9, ["a"], key="cancelled")
    clock.run_until(gone.state)
    gone.cancel("changed my mind").raise_for_error()
    clock.run()
    yield "cancelled", gone
    yield from _others(clock)


def _others(clock: WorkflowClock) -> Iterator[tuple[str, Execution[Any]]]:
    raced = clock.start(race, 6, key="raced")
    clock.run()
    yield "race", raced
    paged = clock.start(pages, key="paged")
    clock.run()
    yield "restarted", paged
    family = clock.start(parent, key="family")
    clock.advance(timedelta(days=1))
    yield "parent", family


def write() -> None:
    """Record them."""
    HERE.mkdir(exist_ok=True)
    with WorkflowClock.installed(11) as clock:
        for name, execution in recorded(clock):
            record = clock._journal.look(execution.id, timeout=5)
            assert record is not None
            found = exported(record, clock._journal.entries(execution.id, timeout=5))
            text = json.dumps(found, indent=1, ensure_ascii=False)
            (HERE / f"{name}.json").write_text(text + "\n")


def test_golden_histories_replay():
    """D5: what is recorded is replayed by this version, on this Python."""
    assert len(list(HERE.glob("*.json"))) == 7

    assert_replays(HERE / "*.json", workflows=[checkout, race, pages, parent])


@pytest.mark.parametrize("seed", ["1", "77"])
def test_golden_histories_replay_with_other_hashes(seed):
    """Sets of tasks iterate alike in every process."""
    code = (
        "import runpy, sys; "
        f"found = runpy.run_path({__file__!r}, run_name='histories'); "
        "found['assert_replays'](found['HERE'] / '*.json')"
    )
    env = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=100)


def changed(tmp_path, name: str, old: str, new: str) -> Path:
    text = (HERE / f"{name}.json").read_text()
    assert old in text
    path = tmp_path / "changed.json"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("completed", '"history.charge"', '"history.charged"', r"command 1: recorded is .*charged"),
        ("completed", '"paid": "19.98"', '"paid": "1"', "returns another value"),
        ("waiting", '"parcels": 3', '"parcels": 4', "publishes another state"),
        ("failed", '"status": "failed"', '"status": "completed"', "the code ends failed"),
        ("race", '"kind": "timer"', '"kind": "mark"', "command"),
        ("race", '"version": 1,\n  "status"', '"version": 3,\n  "status"', "version 3"),
        ("race", '"history.race"', '"history.rage"', "no workflow 'history.rage'.*history.race"),
    ],
)
def test_what_does_not_replay_is_told_in_words(tmp_path, name, old, new, sentence):
    """D5: the sentence names the file, the execution, the command and both sides."""
    path = changed(tmp_path, name, old, new)

    with pytest.raises(ReplayError, match=rf"changed\.json: .*{sentence}"):
        assert_replays(path, workflows=[checkout, race, pages, parent])


def test_all_that_do_not_replay_are_told(tmp_path):
    """One run is enough to know them."""
    path = changed(tmp_path, "completed", '"history.charge"', '"history.charged"')
    (tmp_path / "again.json").write_text(path.read_text())

    with pytest.raises(ReplayError, match=r"again\.json: .*\n.*changed\.json: "):
        assert_replays(str(tmp_path / "*.json"))


def test_nothing_replayed_is_no_success(tmp_path):
    """A mistyped pattern must not pass."""
    with pytest.raises(ReplayError, match="no such file"):
        assert_replays(tmp_path / "*.json")
    with pytest.raises(ReplayError, match="no path is given"):
        assert_replays()


def test_a_file_that_is_no_export_is_refused(tmp_path):
    """With words, and its name."""
    (tmp_path / "other.json").write_text("{}")

    with pytest.raises(ConfigurationError, match=r"other\.json"):
        assert_replays(tmp_path / "other.json")


if __name__ == "__main__":
    write()
