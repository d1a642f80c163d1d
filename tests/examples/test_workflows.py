"""Both examples of workflows finish what they began, though their workers are killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.connection import Connection
from redis import Redis

from dispatchers.testing.servers import MissingServerError, rabbitmq_url, redis_url

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="kill -9")]

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVERS = {"rabbitmq": rabbitmq_url, "redis": redis_url}
DEAD_AFTER = {"redis": {"WINDOW": "5"}, "sqlite": {"LEASE": "5"}}
"""Options by target: seconds until the work of a worker that was killed comes again."""
PATIENCE = 120.0
"""Seconds for all of it: a step of a dead worker runs again once its claim has run out."""


class Project:
    """An example in a folder of its own, through a target, with a queue of the test's own."""

    def __init__(self, name: str, target: str, folder: Path) -> None:
        self.name = name
        self.folder = Path(shutil.copytree(EXAMPLES / name, folder / "project"))
        self.queue = f"{name}-{uuid4().hex}"
        self.url = _server(target)
        self.environment = {**os.environ, "DISPATCHERS_TARGET": target}
        own = DEAD_AFTER.get(target, {})
        if self.url:
            own = {"URL": self.url, "QUEUE": self.queue, **own}
        place = f"DISPATCHERS_TARGETS__{target.upper()}__DEFAULT__"
        self.environment |= {f"{place}{name}": value for name, value in own.items()}

    def run(self, *arguments: str) -> str:
        """What the example's command line prints."""
        done = subprocess.run(
            [sys.executable, "-m", self.name, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker, which is killed with all of its processes in the end."""
        command = [sys.executable, "-m", "dispatchers", "worker", "--concurrency", "2"]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, (self.folder / "log").read_text()[-5000:]
            time.sleep(0.05)

    def effects(self) -> list[tuple[int, str]]:
        """The books of the orders."""
        if not (self.folder / "books.sqlite3").exists():
            return []
        with closing(sqlite3.connect(self.folder / "books.sqlite3", timeout=30)) as books:
            try:
                found = books.execute("SELECT number, what FROM effects ORDER BY number, what")
            except sqlite3.OperationalError:  # the table is not there yet
                return []
            return found.fetchall()

    def forget(self) -> None:
        """Leave nothing in a server that others share."""
        if self.url.startswith("redis"):
            with Redis.from_url(self.url) as client:
                keys: Any = list(client.scan_iter(f"*{self.queue}*"))
                client.delete("nothing", *keys)
        elif self.url:
            with Connection(self.url) as connection:
                connection.channel().queue_delete(self.queue)


def _server(target: str) -> str:
    if target not in SERVERS:
        return ""
    try:
        return SERVERS[target]()
    except MissingServerError as exc:
        if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
            raise
        pytest.skip(f"needs {target}: {exc}")


@contextmanager
def _project(name: str, target: str, folder: Path) -> Iterator[Project]:
    project = Project(name, target, folder)
    try:
        yield project
    finally:
        project.forget()


def _of_order(number: int) -> list[tuple[int, str]]:
    taken = ["charged", "reserved mug", "reserved tea"]
    undone = ["refunded payment-", "released mug", "released tea"]
    ends = [f"{undone[0]}{number}", *undone[1:]] if number % 2 else ["shipped 2"]
    return [(number, what) for what in sorted(taken + ends)]


def _how(project: Project, number: int) -> str:
    return project.run("show", str(number)).split()[0]


def _ended(project: Project) -> bool:
    """The journal's own word, by its command line once the books have all effects."""
    found = {_how(project, number) for number in {number for number, _ in project.effects()}}
    return "running" not in found


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "target", ["sqlite", *(pytest.param(broker, marks=pytest.mark.soak) for broker in SERVERS)]
)
def test_orders_are_shipped_or_undone_though_workers_are_killed(
    target: str, tmp_path: Path
) -> None:
    """Each effect of each order stands in the books once, whatever was killed on the way."""
    orders = range(3)
    all_of_them = [each for number in orders for each in _of_order(number)]
    with _project("orders", target, tmp_path) as project:
        for number in orders:
            assert project.run("place", str(number), "tea", "mug") == "accepted \n"
        with project.worker():
            project.until(lambda: len(project.effects()) >= 2)  # of nine: in the middle
        with project.worker():
            project.until(lambda: len(project.effects()) == 3 * len(orders))
        for number in orders:
            word = "decline" if number % 2 else "approve"
            assert project.run(word, str(number)) == "accepted \n"
        with project.worker():
            project.until(lambda: len(project.effects()) > 3 * len(orders))
        with project.worker():
            project.until(lambda: len(project.effects()) == len(all_of_them))
            project.until(lambda: _ended(project))

        assert project.effects() == all_of_them
        assert [_how(project, number) for number in orders] == ["completed", "failed", "completed"]


def test_an_order_is_undone_once_patience_is_over(tmp_path: Path) -> None:
    """A timer that fires while no worker is there is read by the next one."""
    with _project("orders", "sqlite", tmp_path) as project:
        project.run("place", "1", "tea", "mug", "--patience", "1")
        with project.worker():
            project.until(lambda: len(project.effects()) == len(_of_order(1)))
            project.until(lambda: _ended(project))

        assert project.effects() == _of_order(1)
        assert "no answer came in time" in project.run("show", "1")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", ["sqlite", "rabbitmq"])
def test_an_agent_goes_on_where_it_was_killed(target: str, tmp_path: Path) -> None:
    """What the model said is recorded: each call was made once, as far as results go."""
    with _project("agent", target, tmp_path) as project:
        assert project.run("ask", "one", "Rome, Oslo") == "accepted \n"
        with project.worker():
            project.until((project.folder / "done").exists)
        with project.worker():
            project.until(lambda: "asks" in project.run("show", "one"))
        assert project.run("allow", "one") == "accepted \n"
        with project.worker():
            project.until(lambda: project.run("show", "one").startswith("completed"))

        assert project.run("show", "one") == "completed 2 cities; the mail is sent\n"
        done = sorted(path.read_text() for path in (project.folder / "done").iterdir())
        mail = "email sunny in Rome; sunny in Oslo"
        assert done == [mail, *["think"] * 3, "weather Oslo", "weather Rome"]


def test_in_the_call_the_examples_need_no_worker(tmp_path: Path) -> None:
    """With `inline` each command goes on by itself, from the journal in the file."""
    with _project("orders", "inline", tmp_path / "a") as project:
        assert project.run("place", "2", "tea", "mug") == "executed \n"
        assert project.run("approve", "2") == "executed \n"
        assert project.effects() == _of_order(2)
    with _project("agent", "inline", tmp_path / "b") as project:
        project.run("ask", "one", "Rome")
        project.run("refuse", "one")
        assert project.run("show", "one") == "completed 1 cities; a human said no\n"
