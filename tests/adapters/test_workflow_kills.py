"""K1 to K17 on every broker: a process is killed at one very call, and the execution ends right.

The calls are those of the journal and of the engine; what brings the work again is the backend's.
`tests/core/workflows/killed` does the same, and more, for `sqlite`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dispatchers.journals import Query

from .workflow_backends import BROKERS, site_on
from .workflow_site import Site

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no worker there"),
    pytest.mark.timeout(300),
]

BACKENDS = [*BROKERS, "cloud_tasks"]
SHORT = ["celery/rabbitmq", "rq"]
"""Backends of the short form; `nox -s soak` runs all."""
SOURCES = Path(__file__).parents[1] / "core" / "workflows" / "killed"
RESULT = [2, 7, 4, 6]
"""Of `kills.flow`."""
EFFECTS = Counter(["double 1", "seven", "double 2", "double 3"])
"""Of `kills.flow`, where none is repeated."""
AT_ONCE = Counter(["double 1", "double 2", "double 3"])
"""Of `kills.flow`, steps that may be under way beside a turn, or beside each other."""
IN_THREADS = {"dramatiq", "cloud_tasks"}
"""Backends whose process runs several: who kills it for one kills the others in mid-step (K11)."""
QUICK = [
    ("K4", "replay", None),
    ("K8", "sent before", None),
    ("K11", "double 1", "double 1"),
    ("K12", "answer after", None),
]
MORE = [
    ("K2", "begin before", None),
    ("K3", "begin after", None),
    ("K3", "take before", None),
    ("K5", "seven", "seven"),
    ("K5", "local before", "seven"),
    ("K6", "local after", None),
    ("K7", "leave before", None),
    ("K8", "leave after", None),
    ("K8", "hand over after", None),
    ("K8", "end after", None),
    ("K12", "wake before", None),
    ("K12", "wake after", None),
]
LOST = [
    ("K10", "left", "unknown"),
    ("K13", "wake before", "lose"),
    ("K17", "leave after", "unknown"),
]


class KillSite(Site):
    """A site whose workers are killed as planned."""

    def __init__(
        self, folder: Path, *args: Any, variables: dict[str, str] | None = None, **more: Any
    ) -> None:
        self.plans = folder / "plans"
        self.plans.mkdir()
        environment = {
            "PYTHONPATH": f"{folder}{os.pathsep}{SOURCES}",
            "KILL_PLANS": str(self.plans),
            "KILL_EFFECTS": str(folder / "effects"),
            **(variables or {}),
        }
        modules = "kill_points kill_flows"
        super().__init__(folder, *args, modules=modules, environment=environment, **more)

    def plan(self, key: str, point: str, word: str) -> None:
        (self.plans / f"{key}.{point}").write_text(word)

    def drop(self, key: str, point: str) -> None:
        (self.plans / f"{key}.{point}").unlink()

    def happened(self, key: str, point: str) -> bool:
        """Tell whether a process came to a point."""
        return not (self.plans / f"{key}.{point}").exists()

    def start(self, key: str, workflow: str = "kills.flow") -> str:
        self.send(workflow, key, key=key)
        return f"{workflow}/{key}"

    def result(self, execution: str) -> Any:
        record = self.ended(execution)
        assert record.status.name == "COMPLETED", record
        return json.loads(record.output or b"null")

    def effects_of(self, key: str) -> Counter[str]:
        """Return the effects of one execution."""
        found = [each.partition(" ") for each in self.effects().elements()]
        return Counter(what for name, _, what in found if name == key)


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KillSite]:
    """One worker for all cases of a backend; one that is killed is started again."""

    def url(kind: str) -> str:
        found: str = request.getfixturevalue(f"shared_{kind}")
        return found

    with site_on(request.param, tmp_path_factory.mktemp("kills"), url, KillSite) as found:
        found.start_worker()
        yield found


@pytest.fixture
def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KillSite]:
    """A worker that waits less for the journal."""

    def url(kind: str) -> str:
        found: str = request.getfixturevalue(f"shared_{kind}")
        return found

    variables = {"KILL_TIMEOUT": "0.5"}
    with site_on(request.param, tmp_path, url, KillSite, variables=variables) as found:
        found.start_worker()
        yield found


@pytest.fixture
def key() -> str:
    """A key that no other run has used: brokers remember them."""
    return uuid4().hex


every_backend = pytest.mark.parametrize("site", BACKENDS, indirect=True, scope="module")


def killed_at(site: KillSite, key: str, point: str, twice: str | None) -> None:
    """Run one execution whose process is killed at a point."""
    site.plan(key, point, "process")

    assert site.result(site.start(key)) == RESULT, site.log()

    assert site.happened(key, point)
    more = site.effects_of(key) - EFFECTS - Counter([twice] if twice else [])
    assert not more or (more <= AT_ONCE and site.backend in IN_THREADS), site.log()
    assert site.effects_of(key) >= EFFECTS + Counter([twice] if twice else []), site.log()


@pytest.mark.slow
@pytest.mark.parametrize(
    "site",
    [name if name in SHORT else pytest.param(name, marks=pytest.mark.soak) for name in BACKENDS],
    indirect=True,
    scope="module",
)
@pytest.mark.parametrize(("rule", "point", "twice"), QUICK)
def test_a_process_killed_at_a_call(
    site: KillSite, key: str, rule: str, point: str, twice: str | None
) -> None:
    """K4, K8, K11, K12: the few that show most."""
    del rule
    killed_at(site, key, point, twice)


@pytest.mark.soak
@every_backend
@pytest.mark.parametrize(("rule", "point", "twice"), MORE)
def test_processes_killed_at_more_calls(
    site: KillSite, key: str, rule: str, point: str, twice: str | None
) -> None:
    """K2 to K8, K12: whatever was recorded before is not done again."""
    del rule
    killed_at(site, key, point, twice)


PRODUCER = """
import os, sys
from dispatchers import DispatchRequest, get_dispatcher

dispatcher, (key, when) = get_dispatcher(), sys.argv[1:]
name = "_publish" if hasattr(dispatcher, "_publish") else "_send"
real = getattr(dispatcher, name)

def send(*args, **kwargs):
    if when == "after":
        real(*args, **kwargs)
    os._exit(9)

setattr(dispatcher, name, send)
dispatcher.dispatch(DispatchRequest(task="kills.flow", payload={"key": key}, idempotency_key=key))
"""


@pytest.mark.slow
@every_backend
@pytest.mark.parametrize("when", ["before", "after"])
def test_k1_a_producer_killed_in_its_dispatch(site: KillSite, key: str, when: str) -> None:
    """K1, D1: it begins again with the same key, and that is one execution."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER, key, when],
        cwd=site.folder,
        env={**os.environ, **site.environment},
        check=False,
    )
    assert done.returncode == 9

    assert site.result(site.start(key)) == RESULT

    assert site.effects_of(key) == EFFECTS
    found = site.journal.find(Query(workflow="kills.flow", limit=1000), timeout=30)
    assert [each.id for each in found].count(f"kills.flow/{key}") == 1


@pytest.mark.slow
@every_backend
def test_k9_a_dispatcher_that_refuses(site: KillSite, key: str) -> None:
    """K9: commands wait, running, until they leave; nothing fails for it."""
    execution = site.start(key, "kills.outward")
    site.until(lambda: site.journal.unsent(execution, timeout=30))
    first = site.journal.unsent(execution, timeout=30)[0].next_try
    site.until(lambda: site.journal.unsent(execution, timeout=30)[0].next_try > first)
    assert (record := site.look(execution)) is not None
    assert record.status.name == "RUNNING"

    (site.folder / "away").mkdir()
    site.start_worker("away")

    assert site.result(execution) == 8
    site.kill_worker("away")
    assert site.effects_of(key) == Counter(["away"])


@pytest.mark.slow
@every_backend
@pytest.mark.parametrize(("rule", "point", "word"), LOST)
def test_messages_and_answers_that_are_lost(
    site: KillSite, key: str, rule: str, point: str, word: str
) -> None:
    """K10, K13, K17: they leave again, or the sweep wakes; nothing is done twice."""
    del rule
    site.plan(key, point, word)

    assert site.result(site.start(key)) == RESULT

    assert site.happened(key, point)
    assert site.effects_of(key) == EFFECTS


@pytest.mark.soak
@every_backend
def test_k14_the_wake_up_of_a_timer_that_is_lost(site: KillSite, key: str) -> None:
    """K14: the sweep fires it."""
    site.plan(key, "wake later before", "lose")

    assert site.result(site.start(key, "kills.later")) == 2

    assert site.happened(key, "wake later before")
    assert site.effects_of(key) == Counter(["double 1"])


@pytest.mark.soak
@pytest.mark.parametrize("impatient", BACKENDS, indirect=True)
@pytest.mark.parametrize(
    ("hold", "effect", "said"),
    [
        ("hold seven", "seven", "turns are handed back"),
        ("hold double 1", "double 1", "steps are handed back"),
    ],
)
def test_k15_k16_a_journal_that_is_down(
    impatient: KillSite, key: str, hold: str, effect: str, said: str
) -> None:
    """K15, K16: turn or step is handed back, and comes again once the journal is there."""
    site = impatient
    site.plan(key, hold, "")
    execution = site.start(key)
    site.until(lambda: site.effects_of(key)[effect])
    with site.journal.database.transaction(timeout=30):
        site.drop(key, hold)
        site.until(lambda: said in site.log())

    assert site.result(execution) == RESULT
    assert set(site.effects_of(key)) == set(EFFECTS)


@pytest.mark.soak
@every_backend
def test_k19_code_that_does_not_fit(site: KillSite, key: str) -> None:
    """K19, D5: stuck without an effect, until a worker with code that fits has come."""
    execution = site.start(key, "kills.changed")
    site.until(lambda: (r := site.look(execution)) is not None and r.head == r.seen == 2)
    site.kill_worker()
    site.start_worker(environment={"KILL_OTHER_CODE": "1"})
    site.tell(execution, "signal", "go", "40")
    site.until(lambda: (r := site.look(execution)) is not None and r.status.name == "STUCK")
    site.kill_worker()
    site.start_worker()

    assert site.result(execution) == 42
    assert site.effects_of(key) == Counter(["double 1"])
