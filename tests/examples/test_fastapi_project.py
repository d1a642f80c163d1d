"""A FastAPI project runs the same tasks on every backend, by changing one variable."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from kombu.connection import Connection

from dispatchers.http import PATH
from dispatchers.testing.servers import MissingServerError, free_port, redis_url

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

PROJECT = Path(__file__).parents[2] / "examples" / "fastapi_project"
PATIENCE = 60.0
ORDER = {"cake": "Sachertorte", "price": "24.50", "day": "2027-02-28"}


class Project:
    """The example in a folder of its own, and the processes that are started in it."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "DISPATCHERS_TARGET": target}
        self._stack = ExitStack()

    def start(self, *command: str, **more: str) -> "subprocess.Popen[bytes]":
        """A program of the project, which is ended in order at the end; variables by name."""
        return self._stack.enter_context(self._running(command, more))

    @contextmanager
    def _running(
        self, command: tuple[str, ...], more: dict[str, str]
    ) -> Iterator["subprocess.Popen[bytes]"]:
        said = (self.folder / f"said-by-{command[1]}").open("ab")
        with said, (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env={**self.environment, **more},
                stdout=said,
                stderr=log,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()

    def serve(self, app: str, port: int | None = None, **more: str) -> httpx.Client:
        """A client for an application under uvicorn, once it answers."""
        port = port or free_port()
        process = self.start("uvicorn", app, "--port", str(port), **more)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        self._stack.callback(client.close)
        self.eventually(lambda: process.poll() is not None or answers(client))
        assert process.poll() is None, self.log()
        return client

    def eventually(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        until = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < until, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        """The last words of all processes."""
        return (self.folder / "log").read_text()[-5000:]

    def close(self) -> None:
        """End every process, the last one first."""
        self._stack.close()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/openapi.json").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    made: list[Project] = []

    def make(target: str) -> Project:
        folder = Path(shutil.copytree(PROJECT, tmp_path / target))
        made.append(Project(folder, target))
        return made[-1]

    yield make

    for each in made:
        each.close()


def order(web: httpx.Client, project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """Place an order and ask for a reminder; what was said, and what came of it."""
    placed = web.post("/orders", json=ORDER).raise_for_status().json()
    url = f"/orders/{placed['id']}"
    said = web.post(f"{url}/reminder").raise_for_status().json()

    def is_done() -> bool:
        found = web.get(url).raise_for_status().json()
        return found["baked"] is not None and found["reminded"]

    project.eventually(is_done)
    return {**placed, **said}, web.get(url).json()


def check(web: httpx.Client, project: Project, reminder: str) -> None:
    """Five orders; each is baked at the second attempt."""
    for _ in range(5):
        said, found = order(web, project)

        assert (said["baking"], said["reminder"]) == ("deferred", reminder)
        assert found == {
            "cake": "Sachertorte",
            "baked": "Sachertorte for 24.50 on Sunday",
            "reminded": True,
        }


def test_inline(project):
    """The web process does it all, after it has answered."""
    bakery = project("inline")

    check(bakery.serve("bakery.web:app"), bakery, "executed")


def test_sqlite(project):
    """A worker process beside it, on the same file."""
    bakery = project("sqlite")
    bakery.start("dispatchers", "worker")

    check(bakery.serve("bakery.web:app"), bakery, "accepted")


def test_celery(project):
    """A Celery worker, on Redis."""
    bakery, queue = project("celery"), f"bakery-{uuid4().hex}"
    try:
        url = redis_url()
    except MissingServerError as exc:
        if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
            raise
        pytest.skip(f"needs Redis: {exc}")
    place = "DISPATCHERS_TARGETS__CELERY__DEFAULT__"
    bakery.environment |= {f"{place}URL": url, f"{place}QUEUE": queue}
    bakery.start("dispatchers", "worker", "--concurrency", "1")

    check(bakery.serve("bakery.web:app"), bakery, "accepted")

    with Connection(url) as connection:
        connection.channel().queue_delete(queue)


def test_cloud_tasks(project):
    """The queue calls the worker, which is a FastAPI application under uvicorn as well."""
    if find_spec("dispatchers_cloud_tasks") is None:
        pytest.skip("needs the adapter for Cloud Tasks, which has the stand-in")
    bakery, port = project("cloud_tasks"), free_port()
    everywhere, worker = stand_in(bakery, f"http://127.0.0.1:{port}")
    bakery.environment |= everywhere
    bakery.serve("bakery.worker:app", port, **worker)
    web = bakery.serve("bakery.web:app")

    check(web, bakery, "accepted")

    assert httpx.post(f"http://127.0.0.1:{port}{PATH}", json={}).status_code == 401


def stand_in(bakery: Project, worker_url: str) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that `dispatchers dev` prints: for every process, and for the worker."""
    options = ("port=0", "http_port=0", f"worker_url={worker_url}", "target=cloud_tasks")
    process = bakery.start("dispatchers", "dev", "cloud_tasks", *options, "--dir", ".", "--json")
    printed = bakery.folder / "said-by-dev"
    bakery.eventually(lambda: process.poll() is not None or is_json(printed.read_text()))
    found = json.loads(printed.read_text())
    return found["every process"], found["the worker"]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_a_queue_that_is_down_is_an_answer(project):
    """C1: the order is taken, the reminder is refused, and the server goes on."""
    bakery = project("celery")
    place = "DISPATCHERS_TARGETS__CELERY__DEFAULT__"
    bakery.environment[f"{place}URL"] = f"redis://127.0.0.1:{free_port()}/0"
    web = bakery.serve("bakery.web:app")

    placed = web.post("/orders", json=ORDER)
    reminded = web.post(f"/orders/{placed.json()['id']}/reminder")

    assert (placed.status_code, reminded.status_code) == (201, 503)
    bakery.eventually(lambda: "dispatch of bakery.bake through 'default'" in bakery.log())
    assert "Traceback" not in bakery.log()
