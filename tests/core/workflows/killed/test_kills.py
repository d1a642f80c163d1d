"""K1 to K21: a process is killed at one very call, and the execution ends as it should.

Real workers, killed by SIGKILL. `one` file is queue and journal, where the worker records what its
children found out; with `two`, children record it themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatchers.journals import Query
from dispatchers.sqlite import SQLiteStore, StoreBusyError
from dispatchers.testing import processes

from .site import EFFECTS, RESULT, Site

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no worker there"),
    pytest.mark.timeout(300),
]

BOTH = [
    ("K2", "begin before", None),
    ("K3", "begin after", None),
    ("K3", "take before", None),
    ("K4", "take after", None),
    ("K4", "replay", None),
    ("K5", "seven", "seven"),
    ("K5", "local before", "seven"),
    ("K6", "local after", None),
    ("K7", "end before", None),
    ("K8", "end after", None),
    ("K11", "double 2", "double 2"),
]
TWO = [
    *BOTH,
    ("K7", "leave before", None),
    ("K8", "leave after", None),
    ("K8", "hand over before", None),
    ("K8", "hand over after", None),
    ("K8", "put before", None),
    ("K8", "put after", None),
    ("K8", "sent before", None),
    ("K8", "sent after", None),
    ("K12", "answer after", None),
    ("K12", "wake before", None),
    ("K12", "wake after", None),
]
ONE = [
    *BOTH,
    ("K7", "apply leave before", None),
    ("K7", "apply leave after", None),
    # The worker records it: until then the step counts as not run.
    ("K11", "apply answer before", "double 1"),
    ("K11", "apply answer after", "double 1"),
]
QUICK = [("K4", "replay"), ("K5", "seven"), ("K8", "sent before"), ("K12", "answer after")]


def key_of(rule: str, point: str) -> str:
    return f"{rule}-{point.replace(' ', '-')}"


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Site]]:
    """Gives the site with one file or two; its worker runs from then on."""
    sites: dict[int, Site] = {}

    def opened(files: int) -> Site:
        if files not in sites:
            sites[files] = Site(tmp_path_factory.mktemp(f"files{files}"), files)
            sites[files].start_worker()
        return sites[files]

    yield opened
    for site in sites.values():
        site.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site of its own, without a worker."""
    sites: list[Site] = []

    def made(files: int = 2, **environment: str) -> Site:
        sites.append(Site(tmp_path, files, **environment))
        return sites[-1]

    yield made
    for site in sites:
        site.close()


def killed_at(site: Site, key: str, point: str, word: str, twice: str | None) -> None:
    """Run one execution whose process is killed at a point."""
    site.plan(key, point, word)

    assert site.result(site.start(key)) == RESULT, site.log()

    assert site.happened(key, point)
    assert site.effects(key) == EFFECTS + Counter([twice] if twice else []), site.log()


@pytest.mark.parametrize(("rule", "point"), QUICK)
def test_a_process_killed_at_a_call(
    open_site: Callable[[int], Site], rule: str, point: str
) -> None:
    """K4, K5, K8, K12: the few that show most."""
    twice = {each[1]: each[2] for each in TWO}[point]
    killed_at(open_site(2), key_of(rule, point), point, "process", twice)


@pytest.mark.soak
@pytest.mark.parametrize("word", ["process", "worker"])
@pytest.mark.parametrize(
    ("files", "rule", "point", "twice"),
    [(1, *case) for case in ONE] + [(2, *case) for case in TWO],
)
def test_processes_killed_at_every_call(
    open_site: Callable[[int], Site],
    files: int,
    rule: str,
    point: str,
    twice: str | None,
    word: str,
) -> None:
    """K2 to K8, K11, K12: a run's process, and the worker with it."""
    killed_at(open_site(files), f"{key_of(rule, point)}-{word}", point, word, twice)


PRODUCER = """
import os, sys
from dispatchers import DispatchRequest
from dispatchers.backends.sqlite import SQLiteDispatcher
from dispatchers.sqlite import SQLiteStore

real = SQLiteStore.put

def put(*args, **kwargs):
    if sys.argv[3] == "after":
        real(*args, **kwargs)
    os._exit(9)

SQLiteStore.put = put
request = DispatchRequest(
    task="kills.flow", payload={"key": sys.argv[2]}, idempotency_key=sys.argv[2]
)
SQLiteDispatcher(path=sys.argv[1]).dispatch(request)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_k1_a_producer_killed_in_its_dispatch(open_site: Callable[[int], Site], when: str) -> None:
    """K1, D1: it begins again with the same key, and that is one execution."""
    site, key = open_site(2), f"K1-{when}"
    words = [sys.executable, "-c", PRODUCER, str(site.folder / "queue.db"), key, when]
    assert subprocess.run(words, check=False).returncode == 9

    assert site.result(site.start(key)) == RESULT

    assert site.effects(key) == EFFECTS
    found = site.journal.find(Query(workflow="kills.flow", limit=1000), timeout=30)
    assert [each.id for each in found].count(f"kills.flow/{key}") == 1


@pytest.mark.slow
def test_k9_a_dispatcher_that_refuses(make: Callable[..., Site]) -> None:
    """K9: commands wait, running, until they leave; nothing fails for it."""
    site = make()
    site.start_worker()
    execution = site.start("K9", "kills.outward")
    site.until(lambda: site.journal.unsent(execution, timeout=30))
    first = site.journal.unsent(execution, timeout=30)[0].next_try
    site.until(lambda: site.journal.unsent(execution, timeout=30)[0].next_try > first)
    assert (record := site.look(execution)) is not None
    assert record.status.name == "RUNNING"

    (site.folder / "away").mkdir()
    site.start_worker("away")

    assert site.result(execution) == 8
    assert site.effects("K9") == Counter(["away"])


def test_k10_a_dispatcher_that_may_have_it(open_site: Callable[[int], Site]) -> None:
    """K10: it is handed over again, and runs once."""
    site = open_site(2)
    site.plan("K10", "put after", "unknown")

    assert site.result(site.start("K10")) == RESULT

    assert site.happened("K10", "put after")
    assert site.effects("K10") == EFFECTS


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 2])
def test_k13_a_wake_up_that_is_lost(open_site: Callable[[int], Site], files: int) -> None:
    """K13: the sweep wakes it."""
    site = open_site(files)
    site.plan("K13", "wake before", "lose")

    assert site.result(site.start("K13")) == RESULT

    assert site.happened("K13", "wake before")
    assert site.effects("K13") == EFFECTS


@pytest.mark.parametrize("files", [2])
def test_k14_the_wake_up_of_a_timer_that_is_lost(
    open_site: Callable[[int], Site], files: int
) -> None:
    """K14: the sweep fires it."""
    site = open_site(files)
    site.plan("K14", "wake later before", "lose")

    assert site.result(site.start("K14")) == RESULT

    assert site.happened("K14", "wake later before")
    assert site.effects("K14") == EFFECTS


@pytest.mark.slow
@pytest.mark.parametrize("point", ["begin before", "take before", "hold seven"])
def test_k15_a_journal_that_is_down_in_a_turn(make: Callable[..., Site], point: str) -> None:
    """K15: the turn is handed back, and comes again."""
    site = make(KILL_TIMEOUT="0.5")
    key = "K15"
    execution = f"kills.flow/{key}"
    if point == "hold seven":
        site.plan(key, point, "")
        site.start_worker()
        site.start(key)
        site.until(lambda: site.effects(key)["seven"])
    else:
        site.journal.look(execution, timeout=30)  # its file is there
        site.start(key)
    with site.journal.database.transaction(timeout=30):
        if point == "hold seven":
            site.drop(key, point)
        else:
            site.start_worker()
        site.until(lambda: "turns are handed back" in site.log())

    assert site.result(execution) == RESULT
    assert set(site.effects(key)) == set(EFFECTS)


@pytest.mark.slow
def test_k16_a_journal_that_is_down_after_a_step(make: Callable[..., Site]) -> None:
    """K16: the delivery goes back, and the step runs again."""
    site = make(KILL_TIMEOUT="0.5")
    site.plan("K16", "hold double 1", "")
    site.start_worker()
    execution = site.start("K16")
    site.until(lambda: site.effects("K16")["double 1"])
    with site.journal.database.transaction(timeout=30):
        site.drop("K16", "hold double 1")
        site.until(lambda: "steps are handed back" in site.log())

    assert site.result(execution) == RESULT
    assert site.effects("K16")["double 1"] >= 2
    assert set(site.effects("K16")) == set(EFFECTS)


@pytest.mark.parametrize("point", ["leave after", "local after", "end after"])
def test_k17_a_commit_whose_answer_is_lost(open_site: Callable[[int], Site], point: str) -> None:
    """K17: what is recorded holds; nothing that was recorded is done again."""
    site, key = open_site(2), key_of("K17", point)
    site.plan(key, point, "unknown")

    assert site.result(site.start(key)) == RESULT

    assert site.happened(key, point)
    assert site.effects(key) == EFFECTS


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 2])
def test_k18_two_workers_that_have_one_turn(make: Callable[..., Site], files: int) -> None:
    """K18, D9: one that stood still records nothing once another has gone on."""
    site = make(files, KILL_LEASE="2")
    site.plan("K18", "seven", "stop")
    first = site.start_worker()
    execution = site.start("K18")
    site.until(lambda: site.happened("K18", "seven"))
    site.until(lambda: _stands_still(first, site))
    site.workers["paused"] = site.workers.pop("default")
    site.start_worker()
    assert site.result(execution) == RESULT
    entries = site.entries(execution)

    processes.resume(first)
    site.until(lambda: "has no effect" in site.log() or "lease" in site.log())

    assert site.effects("K18") == EFFECTS + Counter(["seven"])
    assert site.entries(execution) == entries


def _stands_still(pid: int, site: Site) -> bool:
    """Tell whether a worker is stopped outside of a write, which would hold a file for good."""
    if not all(each.is_stopped for each in processes.family(pid)):
        return False
    store = SQLiteStore(site.folder / "queue.db")
    try:
        for database in (store.database, site.journal.database):
            with database.transaction(timeout=1.0):
                pass
    except StoreBusyError:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
        os.kill(pid, signal.SIGSTOP)
        return False
    finally:
        store.close()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 2])
def test_k19_code_that_does_not_fit(make: Callable[..., Site], files: int) -> None:
    """K19, D5: stuck without an effect, until the code fits again."""
    site = make(files)
    site.start_worker()
    execution = site.start("K19", "kills.changed")
    site.until(lambda: len(site.entries(execution)) == 2)
    site.stop_worker()
    site.start_worker(KILL_OTHER_CODE="1")
    site.tell(execution, "40")
    site.until(lambda: (r := site.look(execution)) is not None and r.status.name == "STUCK")
    site.stop_worker()
    assert (record := site.look(execution)) is not None
    assert "double" in (record.why or "")

    site.start_worker()

    assert site.result(execution) == 42
    assert site.effects("K19") == Counter(["double 1"])


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 2])
def test_k20_power_that_is_lost(make: Callable[..., Site], files: int) -> None:
    """K20: what was confirmed is on the disk, and half a write after it does not count."""
    site = make(files)
    point = "apply leave before" if files == 1 else "leave after"
    site.plan("K20", point, "worker")
    site.start_worker()
    execution = site.start("K20")
    site.until(lambda: site.happened("K20", point))
    site.workers.pop("default").wait()
    with site.journal.database.transaction(timeout=30) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    site.journal.close()
    site.queue.close()
    for log in site.folder.glob("*.db-wal"):
        with log.open("ab") as torn:
            torn.write(b"\x00\x01half of a frame" * 100)

    site.reopen()
    site.start_worker()

    assert site.result(execution) == RESULT
    assert site.effects("K20") == EFFECTS


@pytest.mark.parametrize("files", [1])
def test_k21_parked_code_that_is_unwound(make: Callable[..., Site], files: int) -> None:
    """K21, D21: its `finally` asks for nothing when it is put aside, and for all at its end."""
    site = make(files, KILL_CACHE="0 executions")
    site.start_worker()
    execution = site.start("K21", "kills.undone")

    assert site.ended(execution).status.name == "FAILED"

    assert site.effects("K21") == Counter(["double 1", "double 4"])
    names = [entry.kind.name for entry in site.entries(execution)]
    assert names == ["STEP", "DONE", "TIMER", "FIRED", "STEP", "DONE"]
