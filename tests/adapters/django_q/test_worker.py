"""`qcluster` of a project runs our tasks, from both brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from .project import Project

pytestmark = pytest.mark.slow  # whole projects of Django


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes a project, whose cluster is killed at the end."""
    made: list[Project] = []

    def make(**conf: Any) -> Project:
        made.append(Project(tmp_path, **conf))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("broker", ["orm", "redis"])
def test_tasks_run_in_a_cluster(
    project: Callable[..., Project], shared_redis: str, broker: str
) -> None:
    """C9: attempts are ours; what failed for good is django-q2's failed task, and not run again."""
    name = f"worker-{uuid4().hex}"
    conf = {"orm": "default"} if broker == "orm" else {"redis": shared_redis}
    site = project(name=name, **conf)
    done, tried = site.journal("done"), site.journal("tried")
    site.start()

    site.dispatch(
        f"note.dispatch({str(done.path)!r}, 'secret-text')", f"fail.dispatch({str(tried.path)!r})"
    )
    site.until(lambda: bool(done.texts) and len(tried.texts) == 3)
    site.until(lambda: site.rows() == (["shop.fail"], 0))
    with Redis.from_url(shared_redis) as client:
        client.delete(f"django_q:{name}:q")

    assert done.texts == ["secret-text"]
    assert tried.texts == ["1", "2", "3"]
    assert "(shop.fail) - exhausted" in site.log()
    assert "secret-text" not in site.log()


def test_work_of_a_killed_cluster_runs_again(project: Callable[..., Project]) -> None:
    """C9: rows whose cluster was killed are given to another after `retry` seconds."""
    site = project(orm="default")
    ran = site.journal("ran")
    killed = site.start()

    site.dispatch(f"linger.dispatch({str(ran.path)!r})")
    site.until(lambda: ran.texts == ["began"])
    site.kill(killed)
    site.start()
    site.until(lambda: ran.texts == ["began", "began", "ended"])

    assert [entry.deliveries for entry in ran.entries] == [1, 2, 2]


def test_work_that_always_kills_its_process_is_given_up(project: Callable[..., Project]) -> None:
    """C10: beyond `max_deliveries` it is dead, and no row of it is left."""
    site = project(orm="default", timeout=1, retry=2)
    ran = site.journal("ran")
    site.start()

    site.dispatch(f"die.dispatch({str(ran.path)!r})")
    site.until(lambda: "too_many_deliveries" in site.log())
    site.until(lambda: site.rows()[1] == 0)

    assert ran.texts == ["began", "began"]
    assert "shop.die" in site.rows()[0]


@pytest.mark.parametrize("command", [("dispatchers", "worker"), ("dispatchers_worker",)])
def test_the_command_of_ours_names_qcluster(
    project: Callable[..., Project], command: tuple[str, ...]
) -> None:
    """A worker of another alias says what it does not run; for this one alone there is none."""
    site = project(orm="default")
    alone = site.manage(*command, code=2)
    site.configure(audit={"BACKEND": "sqlite", "OPTIONS": {"path": str(site.folder / "audit.db")}})
    beside = site.manage(*command, "--drain")

    words = "'default' (django_q) is run by django-q2's own command"
    assert f"no worker can be started here: {words}" in alone
    assert f"not here: {words}" in beside
    assert "manage.py qcluster" in alone
    assert "manage.py qcluster" in beside
