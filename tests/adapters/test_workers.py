"""Workers of broker libraries, as `dispatchers worker` starts them, keep the rules of workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dispatchers import BaseDispatcher
from dispatchers._config.registry import load_backend
from dispatchers.stores import dead_letters
from dispatchers.testing import Harness, Journal, WorkerConformance
from dispatchers.testing.conformance import _tools

pytestmark = [pytest.mark.slow, pytest.mark.dispatchers_unchecked, pytest.mark.timeout(300)]

BACKENDS: dict[str, dict[str, Any]] = {"celery": {}, "dramatiq": {}, "rq": {"lease": 5.0}}
CASES = [
    "test_each_piece_is_run_once",
    "test_a_busy_worker_holds_nothing_that_it_does_not_run",
    "test_what_runs_beyond_the_grace_comes_again",
    "test_retries_are_attempts",
    "test_a_dead_letter_frees_its_key",
    "test_a_late_run_settles_nothing",
]
"""Those that the adapters' own tests of their workers have not in another form."""
PAIRS = [
    pytest.param(backend, case, id=f"{backend}-{case}") for backend in BACKENDS for case in CASES
]


class Command:
    """`dispatchers worker` in a process of its own, as a worker that a case may stop."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.arguments = folder, arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.is_stopped = False

    def run(self) -> int:
        """Start it, and wait until it has ended."""
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dispatchers", "worker", *self.arguments],
                cwd=self.folder, env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self.process.wait()

    def stop(self) -> None:
        """Signal it; once, since the second signal would end it at once."""
        if self.process is not None and not self.is_stopped:
            self.is_stopped = True
            self.process.terminate()

    def kill(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class CommandHarness(Harness):
    """One queue of a shared Redis, and workers in processes."""

    without = {
        "received": "a worker of the library holds what it has fetched",
        "network": "the worker is another process",
    }

    def __init__(self, backend: str, url: str, folder: Path) -> None:
        self.backend, self.folder = backend, folder
        self.options = {
            "url": url,
            "queue": f"workers-{uuid4().hex}",
            "dead_letters": f"sqlite:{folder / 'dead.db'}",
            **BACKENDS[backend],
        }
        self.idempotency = f"sqlite:{folder / 'keys.db'}"
        self.given: dict[BaseDispatcher, dict[str, Any]] = {}
        self.workers: list[Command] = []

    def make_dispatcher(self, **options: Any) -> BaseDispatcher:
        kind: Any = load_backend(self.backend)
        given = {**self.options, **options}
        dispatcher: BaseDispatcher = kind(**given)
        self.given[dispatcher] = given
        return dispatcher

    def make_worker(self, dispatcher: BaseDispatcher, **options: Any) -> Command:
        folder = self.folder / uuid4().hex
        folder.mkdir()
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.given[dispatcher].items()]
        head = f'target = "t"\n[targets.t.default]\nbackend = "{self.backend}"\n'
        tasks = 'tasks = ["dispatchers.testing.tasks"]\n'
        (folder / "dispatchers.toml").write_text(tasks + head + "\n".join(lines) + "\n")
        flags = ["--drain"] if options.pop("drain", False) else []
        flags += ["--concurrency", str(options.pop("concurrency", 1))]
        flags += ["--grace", f"{options.pop('grace', 30.0):.0f}s"]
        worker = Command(folder, *flags)
        self.workers.append(worker)
        return worker

    def dead(self, dispatcher: BaseDispatcher) -> list[bytes]:
        place = str(self.given[dispatcher]["dead_letters"])
        return [letter.body for letter in dead_letters(place).list()]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


@pytest.mark.parametrize(("backend", "case"), PAIRS)
def test_a_worker_of_a_library(
    backend: str, case: str, shared_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case of the suite of workers, with each worker in processes of its own."""
    monkeypatch.setattr(_tools, "PATIENCE", 60.0)
    harness = CommandHarness(backend, shared_redis, tmp_path)
    journal = Journal(tmp_path / "journal")

    try:
        getattr(WorkerConformance(), case)(harness=harness, journal=journal)
    finally:
        journal.release()
        harness.end()
