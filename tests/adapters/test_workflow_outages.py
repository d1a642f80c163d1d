"""D2, K9, X: the broker is gone while an execution comes to each of its awaits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from dispatchers.journals import EntryKind
from dispatchers.testing.faults import Scene

from .workflow_backends import BROKERS, site_on
from .workflow_site import Site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="no worker there"),
    pytest.mark.timeout(400),
]

FLOWS = """

@task(name="anywhere.gate")
def gate(name: str) -> str:
    note(f"gate {name}")
    while not (HERE / name).exists():
        time.sleep(0.02)
    return name


@workflow(name="anywhere.through")
async def through(key: str) -> list[str]:
    first = await gate.step(f"{key}-1")
    both = await asyncio.gather(gate.step(f"{key}-2"), gate.step(f"{key}-3"))
    await asyncio.sleep(0.5)
    return [first, *both, await gate.step(f"{key}-4")]
"""
GATES = [("1",), ("2", "3"), ("4",)]
"""Steps that are awaited together."""


@pytest.fixture(scope="module")
def scenes(_servers: None) -> Iterator[Callable[[str], Scene]]:
    """Servers of the module's own, started when they are asked for."""
    with ExitStack() as stack:
        made: dict[str, Scene] = {}

        def scene(kind: str) -> Scene:
            if kind not in made:
                made[kind] = stack.enter_context(Scene(kind))
            return made[kind]

        yield scene


def taken_down_at_each_await(
    site: Site, begin: Callable[[], object], end: Callable[[], object]
) -> None:
    """Run one execution, and have no broker whenever a step of it ends."""
    key = uuid4().hex
    execution, answered = f"anywhere.through/{key}", 0
    log = site.folder / "log"
    site.send("anywhere.through", key, key=key)
    for gates in GATES:
        names = [f"{key}-{gate}" for gate in gates]
        site.until(lambda names=names: all(site.effects()[f"gate {each}"] for each in names))
        begin()
        said = log.stat().st_size
        for each in names:
            (site.folder / each).touch()
        answered += len(names)
        site.until(lambda answered=answered: _answers(site, execution) >= answered)
        site.until(lambda said=said: log.stat().st_size > said)
        end()

    record = site.ended(execution)

    assert record.status.name == "COMPLETED", record
    assert {site.effects()[f"gate {key}-{each}"] for gates in GATES for each in gates} == {1}


def _answers(site: Site, execution: str) -> int:
    entries = site.journal.entries(execution, timeout=30)
    return len([each for each in entries if each.kind is EntryKind.DONE])


@pytest.mark.parametrize("fault", ["refused", pytest.param("black hole", marks=pytest.mark.soak)])
@pytest.mark.parametrize("backend", BROKERS)
def test_a_broker_that_is_gone_at_each_await(
    scenes: Callable[[str], Scene], tmp_path: Path, backend: str, fault: str
) -> None:
    """D2: what could not leave leaves once it is back; no step runs twice."""
    scene = scenes(backend.partition("/")[2] or "redis")
    with site_on(backend, tmp_path, lambda _: scene.url, Site, flows=FLOWS) as site:
        site.start_worker()
        taken_down_at_each_await(site, lambda: scene.begin(fault), scene.end)


def test_a_service_that_is_gone_at_each_await(tmp_path: Path) -> None:
    """D2: the same where work is pushed; the service keeps its queue in a folder."""
    with site_on("cloud_tasks", tmp_path, str, Site, flows=FLOWS) as site:
        site.start_worker()
        taken_down_at_each_await(site, site.service.kill, site.service.start)
