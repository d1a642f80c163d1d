"""D17, D18: a workflow over pushed work; timers are delayed tasks, and a scheduler sweeps."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dispatchers.journals import EntryKind

from ..workflow_backends import site_on  # noqa: TID252 - as for the other adapters
from ..workflow_site import Site  # noqa: TID252

FLOWS = """

@workflow(name="anywhere.timed")
async def timed(seconds: list[float]) -> int:
    for each in seconds:
        await asyncio.sleep(each)
        await add.step(len(seconds), right=0)
    return len(seconds)


@workflow(name="anywhere.answered")
async def answered(number: int) -> int:
    return await go.receive() + await add.step(number, right=0)


@workflow(name="anywhere.changed")
async def changed() -> int:
    await add.step(99 if os.environ.get("OTHER_CODE") else 98, right=0)
    return await go.receive()


def kill_server() -> int:
    note("killed")
    if not (HERE / "mended").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return 5


@workflow(name="anywhere.deadly")
async def deadly() -> int:
    return await local(kill_server)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A queue with a worker that no scheduler calls."""
    folder = tmp_path_factory.mktemp("pushed")
    with site_on("cloud_tasks", folder, str, Site, flows=FLOWS) as site:
        site.start_worker()
        yield site


@pytest.fixture
def site(shared: Site) -> Site:
    """The same, without what the test before asked of it."""
    shared.sweeps = False
    return shared


def test_turns_steps_and_timers_are_pushed(site: Site) -> None:
    """D8, D17: timers are tasks of a later time; nothing has to sweep."""
    site.send("anywhere.timed", "pushed", seconds=[0.1, 0.0, 1.2])

    record = site.ended("anywhere.timed/pushed")

    assert (record.status.name, record.output) == ("COMPLETED", b"3")
    assert site.effects()["add 3 0"] == 3


def test_an_answer_whose_wake_up_was_lost_is_swept(site: Site) -> None:
    """D18, K13: the scheduler's call wakes it."""
    site.send("anywhere.answered", "lost", number=30)
    site.until(lambda: site.look("anywhere.answered/lost"))
    told = site.journal.deliver(
        "anywhere.answered/lost",
        "anywhere.answered",
        EntryKind.SIGNAL,
        "go",
        b"7",
        source="a lost request",
        at=time.time(),
        timeout=30,
    )
    assert told.first
    site.sweeps = True

    record = site.ended("anywhere.answered/lost")

    assert (record.status.name, record.output) == ("COMPLETED", b"37")


def test_a_timer_beyond_the_longest_delay_is_the_schedulers(site: Site) -> None:
    """D8: the queue is not asked to hold a task for so long, and the execution can be ended."""
    site.send("anywhere.timed", "far", seconds=[60 * 86400.0])
    site.until(lambda: (r := site.look("anywhere.timed/far")) is not None and r.wake_at)
    site.tell("anywhere.timed/far", "cancel", "enough")

    assert site.ended("anywhere.timed/far").status.name == "CANCELLED"


@pytest.mark.slow
def test_a_service_that_is_killed_in_the_midst(site: Site) -> None:
    """D2: queued turns and steps are in its folder; those that did not leave are swept."""
    site.sweeps = True
    for number in range(5):
        site.send("anywhere.timed", f"killed-{number}", seconds=[0.1] * (number + 5))
    site.until(lambda: site.effects()["add 5 0"])
    site.service.kill()
    site.service.start()

    for number in range(5):
        record = site.ended(f"anywhere.timed/killed-{number}")
        assert (record.status.name, record.output) == ("COMPLETED", b"%d" % (number + 5))


@pytest.mark.slow
def test_code_that_fits_again_is_found_by_the_scheduler(site: Site) -> None:
    """D5: a worker with other code goes on with what is stuck, once it is called."""
    site.sweeps = True
    site.send("anywhere.changed", "1")
    site.until(lambda: site.effects()["add 98 0"])
    site.kill_worker()
    site.start_worker(environment={"OTHER_CODE": "1"})
    site.tell("anywhere.changed/1", "signal", "go", "9")
    site.until(lambda: (r := site.look("anywhere.changed/1")) and r.status.name == "STUCK")
    site.until(lambda: not site.dispatcher.stats()[0].waiting)
    site.kill_worker()
    site.start_worker()

    record = site.ended("anywhere.changed/1")

    assert (record.status.name, record.output) == ("COMPLETED", b"9")
    assert site.effects()["add 98 0"] == 1
    assert site.effects()["add 99 0"] == 0


@pytest.mark.slow
def test_a_turn_that_kills_its_server_is_stopped(site: Site) -> None:
    """D16: four times, however often it is pushed; a new server and the sweep do not run it."""
    site.sweeps = True
    site.send("anywhere.deadly", "1")
    site.until(lambda: (r := site.look("anywhere.deadly/1")) and r.status.name == "STUCK")
    record = site.look("anywhere.deadly/1")
    assert record is not None
    assert record.why is not None
    assert "4 workers in a row ended in a turn of it" in record.why
    assert site.effects()["killed"] == 4
    site.kill_worker()
    site.start_worker()
    fence = record.fence
    site.until(lambda: (r := site.look("anywhere.deadly/1")) and r.fence > fence)
    (site.folder / "mended").touch()
    site.journal.resume("anywhere.deadly/1", number=None, at=time.time(), timeout=30)

    record = site.ended("anywhere.deadly/1")

    assert (record.status.name, record.output) == ("COMPLETED", b"5")
    assert site.effects()["killed"] == 5
