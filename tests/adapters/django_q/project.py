"""A project of Django's with django-q2, in a folder, and its `qcluster`."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dispatchers.testing import Journal
from dispatchers.testing.processes import wait_until

HERE = Path(__file__).parent
SETTINGS = """
from pathlib import Path
HERE = Path(__file__).parent
INSTALLED_APPS = ["dispatchers_django", "django_q", "shop"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HERE / "db.sqlite3",
        "OPTIONS": {{"timeout": 30}},
    }}
}}
SECRET_KEY = "x" * 60 + "abcdefgh"
USE_TZ = True
Q_CLUSTER = {{"workers": 2, "timeout": 4, "retry": 5, "guard_cycle": 0.1, **{conf!r}}}
DISPATCHERS = {{
    "default": {{"BACKEND": "django_q", "OPTIONS": {{"deadline": 30.0, "max_deliveries": 2}}}}
}}
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
execute_from_command_line(sys.argv)
"""


class Project:
    """Its folder, its clusters, and what it is asked."""

    def __init__(self, folder: Path, **conf: Any) -> None:
        self.folder = folder
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "tasks.py").write_text((HERE / "work.py").read_text())
        (folder / "site_settings.py").write_text(SETTINGS.format(conf=conf))
        (folder / "manage.py").write_text(MANAGE)
        self.clusters: list[subprocess.Popen[bytes]] = []
        self.manage("migrate", "--verbosity", "0")

    @property
    def _environ(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith(("DJANGO", "Q_CLUSTER"))}

    def configure(self, **aliases: Any) -> None:
        """Add dispatchers to the settings."""
        with (self.folder / "site_settings.py").open("a") as settings:
            settings.write(f"DISPATCHERS |= {aliases!r}\n")

    def manage(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "manage.py", *command],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dispatch(self, *calls: str) -> None:
        """Dispatch from a process of the project."""
        lines = ["from shop.tasks import *", *(f"print({each}.status.value)" for each in calls)]
        said = self.manage("shell", "--verbosity", "0", "-c", "\n".join(lines))
        assert said.split() == ["accepted"] * len(calls), said

    def rows(self) -> tuple[list[str], int]:
        """Names of what django-q2 keeps as failed, and the number of its packages."""
        with closing(sqlite3.connect(self.folder / "db.sqlite3")) as file:
            failed = file.execute("SELECT name FROM django_q_task WHERE NOT success").fetchall()
            packages = file.execute("SELECT count(*) FROM django_q_ormq").fetchone()
        return [name for (name,) in failed], packages[0]

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "cluster.log").open("ab") as log:
            cluster = subprocess.Popen(
                [sys.executable, "-W", "ignore", "manage.py", "qcluster"],
                cwd=self.folder,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.clusters.append(cluster)
        return cluster

    def kill(self, cluster: subprocess.Popen[bytes]) -> None:
        """`kill -9` of a cluster and all its processes, those that it forks meanwhile too."""
        with suppress(ProcessLookupError):
            os.killpg(cluster.pid, signal.SIGKILL)
        cluster.wait()

    def journal(self, name: str) -> Journal:
        return Journal(self.folder / name)

    def log(self) -> str:
        return (self.folder / "cluster.log").read_text()

    def until(self, true: Callable[[], bool]) -> None:
        wait_until(true, "not in time")

    def close(self) -> None:
        for cluster in self.clusters:
            self.kill(cluster)
