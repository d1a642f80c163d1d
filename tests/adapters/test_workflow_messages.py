"""D2, D13, D15, D17, D19 on every backend with a worker: messages come twice, late, out of order.

One site serves all cases of a backend: a worker of its own, and one of `sqlite` beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from dispatchers import DispatchRequest
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.journals import Record

from .workflow_backends import WORKERS, site_on
from .workflow_site import Site

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="no worker there"),
    pytest.mark.timeout(300),
]

FLOWS = """
import anywhere_alone


@workflow(name="anywhere.told")
async def told(number: int, count: int) -> list[int]:
    first = await add.step(number, right=0)
    return [first, *[await go.receive() for _ in range(count)]]


@workflow(name="anywhere.aside", dispatcher="side")
async def aside(number: int) -> list[int]:
    both = await asyncio.gather(add.step(number, right=1), add.step(number, right=2))
    return [*both, await side.step(number)]


@workflow(name="anywhere.lonely", dispatcher="side")
async def lonely(number: int) -> int:
    return await anywhere_alone.alone.step(number)


if os.environ.get("NEW_CODE"):
    @workflow(name="anywhere.grown", version=2)
    async def grown(number: int) -> int:
        return await add.step(number, right=2) + await go.receive()

    @grown.version(1)
    async def grown_1(number: int) -> int:
        return await add.step(number, right=1) + await go.receive()
else:
    @workflow(name="anywhere.grown")
    async def grown(number: int) -> int:
        return await add.step(number, right=1) + await go.receive()
"""
ALONE = """
from dispatchers import task

@task(name="anywhere.alone")
def alone(number: int) -> int:
    return number + 1
"""
"""A module of steps, for workers that know no workflow."""


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One worker for all cases of a backend, and the other dispatcher's."""

    def url(kind: str) -> str:
        found: str = request.getfixturevalue(f"shared_{kind}")
        return found

    folder = tmp_path_factory.mktemp("messages")
    (folder / "anywhere_alone.py").write_text(ALONE)
    with site_on(request.param, folder, url, Site, flows=FLOWS) as found:
        found.start_worker()
        found.start_worker("side")
        yield found


every_backend = pytest.mark.parametrize("site", WORKERS, indirect=True, scope="module")


@pytest.fixture
def key() -> str:
    """A key that no other run has used: brokers remember them."""
    return uuid4().hex


@pytest.fixture
def number() -> int:
    """A number by which the effects of an execution are told from those of others."""
    return int(uuid4().hex[:12], 16)


@contextmanager
def beside(site: Site) -> Generator[SQLiteDispatcher]:
    """Give the dispatcher of the second backend."""
    side = SQLiteDispatcher(path=str(site.folder / "side.db"))
    try:
        yield side
    finally:
        side.close()


def wake(site: Site, execution: str) -> None:
    """Ask for a turn that nothing wants."""
    site.send(execution.partition("/")[0] + "/turn", execution=execution)


def parked(site: Site, execution: str, entries: int) -> Callable[[], bool]:
    """Tell whether an execution has read so many entries, and waits."""

    def is_parked() -> bool:
        record = site.look(execution)
        return record is not None and record.head == record.seen == entries

    return is_parked


def completed(site: Site, execution: str) -> tuple[Record, bytes]:
    record = site.ended(execution)
    assert record.status.name == "COMPLETED", record
    return record, record.output or b""


@every_backend
def test_wake_ups_that_come_again_and_again(site: Site, key: str, number: int) -> None:
    """D2: before the start, while it waits, and after the end they change nothing."""
    execution = f"anywhere.told/{key}"
    wake(site, execution)
    site.send("anywhere.told", key, number=number, count=1)
    site.until(parked(site, execution, 2))
    for _ in range(10):
        wake(site, execution)
    site.tell(execution, "signal", "go", "7")
    _, output = completed(site, execution)
    entries = site.journal.entries(execution, timeout=30)
    for _ in range(5):
        wake(site, execution)
    site.send("anywhere.told", key, number=number, count=1)
    after = f"anywhere.told/{key}-after"
    site.send("anywhere.told", f"{key}-after", number=number + 1, count=0)
    completed(site, after)

    assert output == b"[%d,7]" % number
    assert site.journal.entries(execution, timeout=30) == entries
    assert site.effects()[f"add {number} 0"] == 1


@every_backend
def test_signals_that_come_before_the_start(site: Site, key: str, number: int) -> None:
    """D15: they are kept, and received in the order in which they were recorded."""
    execution = f"anywhere.told/{key}"
    for place, value in enumerate((4, 5), 1):
        site.tell(execution, "signal", "go", str(value))
        site.until(lambda place=place: (r := site.look(execution)) and r.head == place)
    assert (expected := site.look(execution)) is not None
    site.send("anywhere.told", key, number=number, count=2)

    _, output = completed(site, execution)

    assert expected.status.name == "EXPECTED"
    assert output == b"[%d,4,5]" % number


@every_backend
def test_a_signal_that_comes_twice(site: Site, key: str, number: int) -> None:
    """D15: one request is one signal, however often it is delivered."""
    execution, id_ = f"anywhere.told/{key}", uuid4().hex
    site.send("anywhere.told", key, number=number, count=2)
    site.until(parked(site, execution, 2))
    event = {"kind": "signal", "name": "go", "body": "1"}
    request = DispatchRequest(
        id=id_, task="anywhere.told/turn", payload={"execution": execution, "event": event}
    )
    # By two ways: a backend may drop what it has seen.
    site.dispatcher.dispatch(request).raise_for_error()
    site.until(parked(site, execution, 3))
    with beside(site) as side:
        side.dispatch(request).raise_for_error()
        site.until(lambda: sum((s.waiting or 0) + (s.running or 0) for s in side.stats()) == 0)
    site.tell(execution, "signal", "go", "2")

    _, output = completed(site, execution)

    assert output == b"[%d,1,2]" % number


@every_backend
def test_turns_through_one_backend_and_steps_through_another(
    site: Site, key: str, number: int
) -> None:
    """D17: turns on `sqlite`, two steps on this backend, and one on `sqlite` again."""
    with beside(site) as side:
        side.dispatch(
            DispatchRequest(task="anywhere.aside", payload={"number": number}, idempotency_key=key)
        ).raise_for_error()

    record, output = completed(site, f"anywhere.aside/{key}")

    assert record.dispatcher == "side"
    assert output == b"[%d,%d,%d]" % (number + 1, number + 2, number * 100)
    assert site.effects()[f"add {number} 1"] == site.effects()[f"add {number} 2"] == 1


@every_backend
def test_a_worker_of_steps_without_a_journal(site: Site, key: str, number: int) -> None:
    """D19: it hands steps back, and one that has the journal runs them."""
    if site.backend == "sqlite":
        pytest.skip("its own file is a journal")
    site.kill_worker()
    site.start_worker(
        environment={"DISPATCHERS_TASKS": "anywhere_alone", "DISPATCHERS_WORKFLOWS": "auto"}
    )
    with beside(site) as side:
        side.dispatch(
            DispatchRequest(task="anywhere.lonely", payload={"number": number}, idempotency_key=key)
        ).raise_for_error()
    site.until(lambda: "is not run, as its result would be lost" in site.log())
    site.kill_worker()
    site.start_worker()

    _, output = completed(site, f"anywhere.lonely/{key}")

    assert output == b"%d" % (number + 1)


@every_backend
def test_old_and_new_code_at_once(site: Site, key: str, number: int) -> None:
    """D13: each execution stays on its version, whichever worker a turn comes to first."""
    old = f"anywhere.grown/{key}-old"
    site.send("anywhere.grown", f"{key}-old", number=number)
    site.until(parked(site, old, 2))
    if site.worker_url:  # there is one address to push to
        site.kill_worker()
        site.start_worker(environment={"NEW_CODE": "1"})
    else:
        site.start_worker(name="new", environment={"NEW_CODE": "1"})
    began = _begun_until_new(site, key, number)
    for execution in (old, *began):
        site.tell(execution, "signal", "go", "0")

    ended = [completed(site, execution) for execution in (old, *began)]

    if not site.worker_url:
        site.kill_worker("new")
    assert ended[0][0].version == 1
    assert {2} <= {record.version for record, _ in ended}
    assert [output for _, output in ended] == [b"%d" % (number + r.version) for r, _ in ended]


def _begun_until_new(site: Site, key: str, number: int) -> list[str]:
    """Begin executions until a worker with the new code has taken one."""
    began: list[str] = []

    def has_new() -> bool:
        began.append(f"anywhere.grown/{key}-{len(began)}")
        site.send("anywhere.grown", began[-1].partition("/")[2], number=number)
        site.until(lambda: site.look(began[-1]))
        record = site.look(began[-1])
        return record is not None and record.version == 2

    site.until(has_new)
    return began
