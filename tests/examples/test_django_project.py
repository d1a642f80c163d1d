"""The Django project runs the same view and task on every queue, driven over HTTP from outside."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from dispatchers.http import PATH
from dispatchers.testing import processes
from dispatchers.testing.servers import MissingServerError, RedisServer, free_port, redis_url

pytestmark = pytest.mark.slow  # whole projects, processes by the dozen

PROJECT = Path(__file__).parents[2] / "examples" / "django_project"
PATIENCE = 60.0
"""Seconds for anything to happen, on a machine that is very busy."""
LISTENS = re.compile(r"Listening at: (http://\S+)")
"""What gunicorn says once the port is its own."""

for needed in ("django", "gunicorn"):
    pytest.importorskip(needed)


class Site:
    """The project with its own data: its web process, and its worker."""

    def __init__(self, queue: str, data: Path, stack: ExitStack) -> None:
        self.data = data
        self.stack = stack
        self.web: str = ""
        self.worker: str = ""
        self.both = {"SHOP_QUEUE": queue, "SHOP_DATA": str(data)}
        self.served: list[subprocess.Popen[str]] = []
        self.told: dict[int, Path] = {}

    def variables(self, **more: str) -> dict[str, str]:
        mine = {k: v for k, v in os.environ.items() if not k.startswith(("DISPATCHERS_", "DJANGO"))}
        return {**mine, **self.both, "PYTHONDONTWRITEBYTECODE": "1", **more}

    def manage(self, *command: str, **more: str) -> None:
        line = [sys.executable, "manage.py", *command]
        done = subprocess.run(
            line,
            cwd=PROJECT,
            env=self.variables(**more),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        """A process that ends with the test."""
        path = self.data / f"{uuid4().hex}.log"
        log = path.open("w")
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env=self.variables(**more),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.stack.callback(log.close)
        self.stack.callback(stop, process)
        self.told[process.pid] = path
        return process

    def serve(self, port: int = 0, **more: str) -> str:
        """A gunicorn with two processes, once it answers; by default on a port of its choice.

        A port that was free may be taken before it listens, by a server of another test: gunicorn
        tries again, and the other one answers meanwhile.
        """
        bind = f"127.0.0.1:{port}"
        gunicorn = ("-m", "gunicorn", "project.wsgi", "--workers", "2", "--bind", bind)
        process = self.start(*gunicorn, **more)
        self.served.append(process)
        log = self.told[process.pid]
        found = wait_until(lambda: process.poll() is not None or LISTENS.search(log.read_text()))
        assert isinstance(found, re.Match), self.logs()
        url = found[1]
        wait_until(lambda: process.poll() is not None or answers(f"{url}/orders/0"))
        assert process.poll() is None, self.logs()
        return url

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.data.glob("*.log"))

    def place(self, **form: str) -> Any:
        status, said = ask(f"{self.web}/orders", {"customer": "ada", **form})
        assert status == 200, f"{status} for an order: {said!r}\n{self.logs()}"
        return said

    def order(self, number: int) -> Any:
        status, said = ask(f"{self.web}/orders/{number}")
        assert status == 200, f"{status} for order {number}: {said!r}\n{self.logs()}"
        return said


def stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)


def ask(url: str, form: dict[str, str] | None = None) -> tuple[int, Any]:
    data = None if form is None else urlencode(form).encode()
    try:
        with urlopen(Request(url, data), timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def answers(url: str) -> bool:
    try:
        ask(url)
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, once it is true; and what it gives in the end."""
    until = time.monotonic() + PATIENCE
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def first_json(log: Path) -> Any:
    """The first JSON in a log; None as long as it is not all there."""
    text = log.read_text()
    try:
        return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]
    except ValueError:
        return None


# How the work gets to a worker.


def needs(module: str) -> None:
    """Pass over a way whose package is not installed; it is not imported, for want of settings."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")


def inline(site: Site) -> None:
    site.web = site.serve()


def sqlite(site: Site) -> None:
    site.web = site.serve()
    site.start("manage.py", "dispatchers_worker", "--concurrency", "2")


def celery(site: Site) -> None:
    try:
        url = redis_url()
    except MissingServerError as exc:
        if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
            raise
        pytest.skip(f"needs redis: {exc}")
    queue = f"shop-{uuid4().hex}"
    site.both |= {"SHOP_BROKER": url, "SHOP_BROKER_QUEUE": queue}
    site.stack.callback(delete_queue, url, queue)
    site.web = site.serve()
    site.start("manage.py", "dispatchers_worker", "--concurrency", "2")


def django_rq(site: Site) -> None:
    needs("django_rq")
    redis = site.stack.enter_context(RedisServer())
    site.both |= {"SHOP_BROKER": redis.url}
    site.web = site.serve()
    site.start("manage.py", "dispatchers_worker")


def django_q(site: Site) -> None:
    needs("django_q")
    site.web = site.serve()
    site.start("manage.py", "qcluster")


def django_tasks(site: Site) -> None:
    needs("django_tasks_db")
    site.web = site.serve()
    site.start("manage.py", "db_worker", "--interval", "0.1")


def delete_queue(url: str, queue: str) -> None:
    """Leave nothing in a server that others share."""
    from kombu.connection import Connection

    with Connection(url) as connection:
        connection.channel().queue_delete(queue)


def cloud_tasks(site: Site) -> None:
    needs("dispatchers_cloud_tasks")
    port = free_port()
    site.worker = f"http://127.0.0.1:{port}"
    options = ("port=0", "http_port=0", f"worker_url={site.worker}", "target=django")
    site.start(
        *("-m", "dispatchers", "dev", "cloud_tasks", *options, "--json"),
        *("--dir", str(site.data)),
        PYTHONUNBUFFERED="1",
    )
    log = next(site.data.glob("*.log"))
    said = wait_until(lambda: first_json(log))
    assert said, site.logs()
    site.both |= said["every process"]
    letters = {"DISPATCHERS_ENDPOINT__DEAD_LETTERS": f"sqlite:{site.data}/dead.sqlite3"}
    site.serve(port, **said["the worker"], **letters)
    site.web = site.serve()


WAYS = {
    each.__name__: each
    for each in (inline, sqlite, celery, cloud_tasks, django_rq, django_q, django_tasks)
}


@contextmanager
def started(queue: str, data: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        site = Site(queue, data, stack)
        # The settings of Cloud Tasks are not there yet.
        named = "inline" if queue == "cloud_tasks" else queue
        site.manage("migrate", "--verbosity", "0", SHOP_QUEUE=named)
        WAYS[queue](site)
        yield site


@pytest.fixture(scope="module", params=WAYS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with started(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


def booked(site: Site, number: int) -> Any:
    wait_until(lambda: site.order(number)["booked"])
    return site.order(number)


def test_orders_are_placed_in_one_process_and_booked_where_the_variable_says(site: Site) -> None:
    """Each is tried twice, and booked once; only `inline` books in the web process."""
    placed = [site.place() for _ in range(5)]
    found = [booked(site, each["number"]) for each in placed]

    is_inline = site.both["SHOP_QUEUE"] == "inline"
    said = "executed" if is_inline else "accepted"
    assert [(each["held"], each["status"]) for each in placed] == [("deferred", said)] * 5
    assert [(each["booked"], each["attempt"]) for each in found] == [(1, 2)] * 5, site.logs()
    web = {each["process"] for each in placed}
    assert ({each["process"] for each in found} <= web) is is_inline


def test_an_order_that_was_rolled_back_is_never_booked(site: Site) -> None:
    """Nothing was dispatched: there is no final response."""
    placed = site.place(rollback="1")
    after = booked(site, site.place()["number"])

    assert (placed["held"], placed["status"]) == ("deferred", None)
    assert after["booked"] == 1


def test_a_web_process_is_no_worker(site: Site) -> None:
    """404 before anything else; a worker asks who it is."""
    status, _ = ask(f"{site.web}{PATH}", {})

    assert status == 404
    if site.worker:
        assert ask(f"{site.worker}{PATH}", {})[0] in {401, 415}


def test_an_outbox_loses_no_order_while_the_broker_is_stopped(tmp_path: Path) -> None:
    """Orders are taken all the while; a killed web process leaves its rows to the worker."""
    with RedisServer() as redis, ExitStack() as stack:
        site = Site("celery", tmp_path, stack)
        site.both |= {"SHOP_OUTBOX": "1", "SHOP_BROKER": redis.url}
        site.manage("migrate", "--verbosity", "0")
        site.web = site.serve()
        site.start("manage.py", "dispatchers_worker", "--concurrency", "2")
        placed = [site.place() for _ in range(5)]
        assert [each["held"] for each in placed] == ["deferred"] * 5, site.logs()
        before = [booked(site, each["number"]) for each in placed]

        redis.stop()
        during = [site.place() for _ in range(20)]
        waiting = [site.order(each["number"])["booked"] for each in during]
        for process in [each for each in site.served if each.poll() is None]:
            processes.kill(processes.family(process.pid))
        redis.start()
        site.web = site.serve()
        after = [booked(site, each["number"]) for each in during]

    assert [each["held"] for each in [*placed, *during]] == ["deferred"] * 25
    assert waiting == [0] * 20
    assert [each["booked"] for each in [*before, *after]] == [1] * 25, site.logs()
