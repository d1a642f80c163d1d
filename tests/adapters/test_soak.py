"""C9, at length: brokers and workers are killed again and again, and nothing confirmed is lost.

`nox -s soak` runs these and prints the counts, which stand in docs/operations.md.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatchers import BaseDispatcher
from dispatchers._config.registry import load_backend
from dispatchers.testing import Journal
from dispatchers.testing.servers import PrivateServer, RabbitMQServer, RedisServer

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform == "win32", reason="kills groups")]

KILLS = int(os.environ.get("SOAK_KILLS", "10"))
PATIENCE = float(os.environ.get("SOAK_PATIENCE", "300"))
WORK = """
import time
from dispatchers import task
from dispatchers.testing import Journal

@task(name="soak.note", queue="soak")
def note(journal: str) -> None:
    time.sleep(0.01)
    Journal(journal).write("done")
"""
CELERY = """
from celery import Celery

app = Celery("soak", broker={url!r})
app.conf.update(
    task_default_queue="soak",
    broker_transport_options={{
        "visibility_timeout": 10, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
    }},
)
"""
DRAMATIQ = """
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url={url!r}, heartbeat_timeout=5000)
broker.declare_queue("soak")
"""
ADAPTERS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "celery/redis": ("celery", "redis", {"app": "soak_app:app"}, CELERY),
    "celery/rabbitmq": ("celery", "rabbitmq", {}, ""),
    "rq": ("rq", "redis", {"lease": 5}, ""),
    "rq without horses": ("rq", "redis", {"lease": 5, "horses": False}, ""),
    "dramatiq/redis": ("dramatiq", "redis", {"broker": "soak_app:broker"}, DRAMATIQ),
    "dramatiq/rabbitmq": ("dramatiq", "rabbitmq", {}, ""),
}


class Place:
    """A broker of its own, a configured folder, producers and workers."""

    def __init__(self, adapter: str, folder: Path) -> None:
        backend, kind, options, source = ADAPTERS[adapter]
        self.adapter = adapter
        self.server: PrivateServer = (
            RedisServer(keeps="always") if kind == "redis" else RabbitMQServer()
        )
        self.server.start()
        self.folder = folder
        self.journal = Journal(folder / "journal")
        (folder / "soak_work.py").write_text(WORK)
        (folder / "soak_app.py").write_text(source.format(url=self.server.url))
        self.options = {"queue": "soak", "deadline": 2.0, "max_deliveries": 50, **options}
        if not source:
            self.options["url"] = self.server.url
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.options.items()]
        head = f'tasks = ["soak_work"]\ntarget = "t"\n[targets.t.default]\nbackend = "{backend}"\n'
        (folder / "dispatchers.toml").write_text(head + "\n".join(lines) + "\n")
        sys.path.insert(0, str(folder))
        kind_of: Any = load_backend(backend)
        self.dispatcher: BaseDispatcher = kind_of(**self.options, breaker=False)
        self.accepted: list[str] = []
        self._worker: subprocess.Popen[bytes] | None = None

    def start_worker(self) -> None:
        command = [sys.executable, "-m", "dispatchers", "worker", "--concurrency", "2"]
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_worker(self) -> None:
        if self._worker is not None and self._worker.poll() is None:
            os.killpg(self._worker.pid, signal.SIGKILL)
            self._worker.wait()

    def produce(self, stop: threading.Event, pause: float) -> None:
        import importlib

        note = importlib.import_module("soak_work").note.options(dispatcher=self.dispatcher)
        while not stop.is_set():
            response = note.dispatch(self.journal.path)
            if response.status == "accepted":
                self.accepted.append(response.request_id)
            time.sleep(pause)

    def told(self) -> tuple[int, int, int]:
        """How much was accepted, is lost, and was done more than once, when all should be done."""
        until = time.monotonic() + PATIENCE
        while set(self.accepted) - self._done().keys() and time.monotonic() < until:
            self._see_to_worker()
            time.sleep(0.5)
        done = self._done()
        lost = set(self.accepted) - done.keys()
        return len(self.accepted), len(lost), sum(count > 1 for count in done.values())

    def _see_to_worker(self) -> None:
        """A worker that its broker's end has ended is started again, as any supervisor does."""
        if self._worker is not None and self._worker.poll() is not None:
            self.start_worker()

    def _done(self) -> Counter[str]:
        return Counter(entry.request_id for entry in self.journal.entries)

    def close(self) -> None:
        self.kill_worker()
        self.dispatcher.close()
        self.server.remove()
        sys.path.remove(str(self.folder))
        for name in ("soak_work", "soak_app"):
            sys.modules.pop(name, None)


@pytest.fixture(params=ADAPTERS)
def place(request: pytest.FixtureRequest, tmp_path: Path, _servers: None) -> Iterator[Place]:
    found = Place(request.param, tmp_path)
    yield found
    found.close()


def test_a_broker_that_is_killed_again_and_again_loses_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """C9: two producers and a worker, `kill -9` of the broker at random moments."""
    stop = threading.Event()
    threads = [threading.Thread(target=place.produce, args=(stop, 0.005)) for _ in range(2)]
    place.start_worker()
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        time.sleep(random.uniform(1.0, 3.0))
        place.server.kill()
        place.server.start()
        place._see_to_worker()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join()

    accepted, lost, twice = place.told()

    with capsys.disabled():
        print(f"\n{place.adapter}: {KILLS} kills, {accepted} accepted, {lost} lost, {twice} twice")
    assert accepted > 0
    assert lost == 0


def test_workers_that_are_killed_again_and_again_lose_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """C9: a worker and its children, `kill -9` at random moments, another in its place."""
    stop = threading.Event()
    producer = threading.Thread(target=place.produce, args=(stop, 0.01))
    producer.start()
    for _ in range(KILLS):
        place.start_worker()
        time.sleep(random.uniform(2.0, 4.0))
        place.kill_worker()
    stop.set()
    producer.join()
    place.start_worker()

    accepted, lost, twice = place.told()

    with capsys.disabled():
        print(f"\n{place.adapter}: {KILLS} kills, {accepted} accepted, {lost} lost, {twice} twice")
    assert accepted > 0
    assert lost == 0
