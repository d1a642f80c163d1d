"""Processes that are killed around a commit: the relay does what they could not (O1 to O3).

Projects of their own, on SQLite, PostgreSQL and MariaDB.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from .databases import KINDS, database
from .test_project import Project

pytestmark = pytest.mark.slow  # whole projects, processes by the dozen

KEYS = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
URLS = "ROOT_URLCONF = 'dispatchers_django.urls'"
MYSQL = """
try:
    import pymysql
    pymysql.install_as_MySQLdb()
except ImportError:
    pass
"""
KILLED = """
import os, signal
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
django.setup()
from django.db import transaction
from shop.tasks import write
{before}
with transaction.atomic():
    {first}
    write.dispatch("once ")
    {last}
import time
time.sleep(60)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
SETTLING = f"""
from dispatchers.outbox import OutboxRows
OutboxRows.settle = lambda *_: {KILL}
"""


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, tables: None) -> Iterator[Project]:
    """A project whose work goes through an outbox to a queue in a file."""
    project = Project(tmp_path)
    with database(request.param) as alias:
        found = {key: connections.settings[alias][key] for key in KEYS}
        if request.param == "sqlite":
            found["NAME"] = str(tmp_path / "db.sqlite3")
        project.configure(
            f"{MYSQL}\nDATABASES = {{'default': {found!r}}}\n{URLS}",
            default={"BACKEND": "outbox", "OPTIONS": {"to": "queue", "store": "django:default"}},
            queue={"BACKEND": "sqlite", "OPTIONS": {"path": str(tmp_path / "queue.sqlite3")}},
        )
        if request.param == "sqlite":
            project.manage("migrate", "--verbosity", "0")
        yield project


def killed(site: Project, *, before: str = "", first: str = "pass", last: str = "pass") -> None:
    """Run a process that dispatches, and is killed on its way."""
    script = KILLED.format(before=before, first=first, last=last)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=site.folder, env=site.environ, timeout=100, check=False
    )
    assert done.returncode == -signal.SIGKILL


def written(site: Project) -> str:
    """What the tasks have written once everything is handed over and run."""
    site.manage("dispatchers_relay", "--drain")
    site.manage("dispatchers_worker", "queue", "--drain", "--concurrency", "1")
    path = site.folder / "written"
    return path.read_text() if path.exists() else ""


def test_killed_before_the_commit_nothing_happened(site):
    """O1: no row, no work."""
    killed(site, last=KILL)

    assert written(site) == ""


def test_killed_between_commit_and_hand_over_the_relay_does_it(site):
    """O2: once."""
    killed(site, first=f"transaction.on_commit(lambda: {KILL})")

    assert written(site) == "once "


def test_killed_after_the_broker_s_answer_it_is_repeated_under_its_id(site):
    """O3: the queue recognises it, and it runs once."""
    killed(site, before=SETTLING)

    assert written(site) == "once "


def test_a_worker_hands_over_as_well(site):
    """`dispatchers_worker` of the outbox's alias: relay and worker in one."""
    killed(site, first=f"transaction.on_commit(lambda: {KILL})")
    site.manage("dispatchers_worker", "--drain", "--concurrency", "1")

    assert written(site) == "once "
