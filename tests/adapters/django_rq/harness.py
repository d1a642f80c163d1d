"""A queue of django-rq's settings, stepped as RQ's are; and a project with its workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dispatchers_django_rq import DjangoRQDispatcher
from django.test import override_settings

from dispatchers.testing import Journal
from dispatchers.testing.processes import family, kill, wait_until
from tests.adapters.rq.harness import RQHarness

HERE = Path(__file__).parent
SETTINGS = """
INSTALLED_APPS = ["dispatchers_django", "django_rq", "shop"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
SECRET_KEY = "x" * 60 + "abcdefgh"
RQ_QUEUES = {{"{queue}": {{"URL": "{url}", "DB": None}}}}
RQ = {rq!r}
DISPATCHERS = {{
    "default": {{
        "BACKEND": "django_rq",
        "OPTIONS": {{"queue": "{queue}", "lease": 2.0, "deadline": 5.0, "max_deliveries": 3}},
    }}
}}
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
execute_from_command_line(sys.argv)
"""


class DjangoRQHarness(RQHarness):
    """One queue, which `RQ_QUEUES` has."""

    kind = DjangoRQDispatcher

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        self.tables: dict[str, dict[str, Any]] = {self.queue: {"URL": url, "DB": None}}
        self._override: Any = override_settings(RQ_QUEUES=self.tables)
        self._override.enable()

    def make_dispatcher(self, **options: Any) -> Any:
        given = {"queue": self.queue, **options}
        table = {**self.tables[self.queue], "URL": given.pop("url", self.url)}
        for name in {given["queue"], *given.get("queues", ())}:
            self.tables[name] = {**table}
        return self.keep(self.kind(**given))

    def close(self) -> None:
        self._override.disable()
        super().close()


class Project:
    """A project of Django's with one queue, and its workers."""

    def __init__(self, place: DjangoRQHarness, folder: Path, **rq: Any) -> None:
        self.folder = folder
        self.queue = place.queue
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").touch()
        (folder / "shop" / "tasks.py").write_text((HERE / "work.py").read_text())
        settings = SETTINGS.format(queue=place.queue, url=place.url, rq=rq)
        (folder / "site_settings.py").write_text(settings)
        (folder / "manage.py").write_text(MANAGE)
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A worker of the project, by `manage.py`."""
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-W", "ignore", "manage.py", *command],
                cwd=self.folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("DJANGO")},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """`kill -9` of a worker and its children, which RQ gives groups of their own."""
        if worker.poll() is None:
            kill(family(worker.pid))
            worker.wait()

    def journal(self, name: str) -> Journal:
        return Journal(self.folder / name)

    def until(self, true: Any) -> None:
        wait_until(true, (self.folder / "worker.log").read_text()[-6000:])

    def close(self) -> None:
        for worker in self.workers:
            self.kill(worker)
