"""D2, D3, at length: workers of Celery on RabbitMQ are killed again and again.

`nox -s soak` runs the long form; its counts stand in docs/workflow-failures.md.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from dispatchers.journals import Query, Status

from .workflow_site import Site, forget_queues

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills groups")

KILLS = int(os.environ.get("SOAK_KILLS", "300"))
EXECUTIONS = int(os.environ.get("SOAK_EXECUTIONS", "1000"))
FLOW = """

@task(name="anywhere.noted")
def noted(order: int, number: int) -> int:
    note(f"{order} {number}")
    time.sleep(0.01)
    return 2 * number


@workflow(name="anywhere.soaked")
async def soaked(order: int) -> list[int]:
    first = await noted.step(order, 1)
    both = await asyncio.gather(noted.step(order, 2), noted.step(order, 3))
    await asyncio.sleep(0.2)
    rate = await local(seven)
    return [first, *both, rate, await noted.step(order, 4)]
"""
RESULT = b"[2,4,6,7,8]"
STEPS = 4
ENOUGH = 20
"""Executions that have to be under way when a worker is killed."""


def soak(folder: Path, url: str, kills: int, executions: int) -> str:
    """Kill workers while executions run, judge all, and return the counts."""
    queue = f"soaked-{uuid4().hex[:12]}"
    options = {"url": url, "queue": queue, "deadline": 10.0, "max_deliveries": 1000}
    site = Site(folder, "celery", options, flows=FLOW)
    try:
        began = time.monotonic()
        _send(site, range(executions))
        for _ in range(kills):
            executions = _with_more(site, executions)
            site.start_worker()
            # From the first sign of life: a start takes seconds, and is no time to be killed at.
            _await_progress(site)
            time.sleep(random.uniform(0.0, 1.0))
            site.kill_worker()
        site.start_worker()
        _await_ends(site, executions, 600 + kills)
        return _judged(site, kills, executions, time.monotonic() - began)
    finally:
        site.close()
        forget_queues(url, queue)


def _send(site: Site, numbers: range) -> None:
    for number in numbers:
        site.send("anywhere.soaked", str(number), order=number)


def _with_more(site: Site, count: int) -> int:
    """Send more where most has ended, and return how many there are: none is killed for nothing."""
    if len(_completed(site, count)) < count - ENOUGH:
        return count
    _send(site, range(count, count + 2 * ENOUGH))
    return count + 2 * ENOUGH


def _await_progress(site: Site) -> None:
    before = site.effects().total()
    end = time.monotonic() + 30
    while site.effects().total() == before and time.monotonic() < end:
        time.sleep(0.05)


def _await_ends(site: Site, count: int, limit: float) -> None:
    end = time.monotonic() + limit
    while (done := len(_completed(site, count))) < count:
        assert time.monotonic() < end, f"{done} of {count}: {site.log()}"
        if site.workers["default"].poll() is not None:
            site.start_worker()
        time.sleep(0.5)


def _completed(site: Site, count: int) -> list[str]:
    query = Query(workflow="anywhere.soaked", status=(Status.COMPLETED,), limit=count + 1)
    return [each.id for each in site.journal.find(query, timeout=30)]


def _judged(site: Site, kills: int, executions: int, seconds: float) -> str:
    for number in range(executions):
        execution = f"anywhere.soaked/{number}"
        record = site.ended(execution)
        assert record.output == RESULT, record
    ran = site.effects()
    assert set(ran) == {f"{key} {n}" for key in range(executions) for n in range(1, STEPS + 1)}
    repeated = ran.total() - len(ran)
    return (
        f"{kills} kills in {seconds:.0f} s, {executions} executions: 0 lost, 0 wrong, "
        f"no answer twice; {len(ran)} effects, {repeated} of them repeated"
    )


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_executions_end_right_when_workers_are_killed(tmp_path: Path, shared_rabbitmq: str) -> None:
    """D2, D3: the short form."""
    print(soak(tmp_path, shared_rabbitmq, 5, 30))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_executions_end_right_in_the_long_run(
    tmp_path: Path, shared_rabbitmq: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same many times over."""
    counts = soak(tmp_path, shared_rabbitmq, KILLS, EXECUTIONS)
    with capsys.disabled():
        print(f"\ncelery/rabbitmq: {counts}")
