"""A workflow on one backend: its configuration in a folder, and workers that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from dispatchers import DispatchRequest
from dispatchers._config.registry import load_backend
from dispatchers.journals import EntryKind, Record
from dispatchers.sqlite import SQLiteJournal
from dispatchers.testing import processes

PATIENCE = 100.0
FLOWS = """
import asyncio
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from dispatchers import StepError, current_run, task
from dispatchers.workflows import Signal, local, now, workflow

HERE = Path(__file__).parent
go = Signal("go", int)


def note(what: str) -> None:
    file = os.open(HERE / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, (what + "\\n").encode())
    os.close(file)


@task(name="anywhere.add")
def add(left: int, right: int) -> int:
    note(f"add {left} {right}")
    return left + right


@task(name="anywhere.hold")
def hold(number: int) -> int:
    note("hold")
    while not (HERE / "released").exists():
        time.sleep(0.02)
    return number


@task(name="anywhere.side", dispatcher="side")
def side(number: int) -> int:
    note("side")
    return number * 100


@task(name="anywhere.fail")
def fail() -> int:
    raise ValueError("as it should")


@task(name="anywhere.large")
def large() -> str:
    return "x" * (2 << 20)


def seven() -> int:
    return 7


@workflow(name="anywhere.child")
async def child(number: int) -> int:
    return await add.step(number, right=1)


@workflow(name="anywhere.flow")
async def flow(number: int, held: bool) -> list[int]:
    three, four = await asyncio.gather(add.step(number, right=2), add.step(number, right=3))
    if held:
        await hold.step(0)
    await asyncio.sleep(0.1)
    rate = await local(seven)
    told = await go.receive()
    below = await child.step(10)
    beside = await side.step(number)
    failures = 0
    late = add.options(expires=now() - timedelta(hours=1))
    for step in (fail.step(), large.step(), late.step(5, right=5)):
        try:
            await step
        except StepError as exc:
            failures += 10 if exc.category == "expired" else 1
    return [three, four, rate, told, below, beside, failures]


@workflow(name="anywhere.waits")
async def waits() -> None:
    try:
        await go.receive()
    finally:
        await add.step(0, right=0)
"""
HERE_RUNS = """
import json, sys, threading, time
from dispatchers import DispatchRequest, get_dispatcher
from dispatchers._dispatch.worker_protocol import WorkerOptions
from dispatchers.workflows import sweep
import anywhere

queue = get_dispatcher()
if queue.name == "memory":
    worker = queue._worker(WorkerOptions(concurrency=2))
    threading.Thread(target=worker.run, daemon=True).start()

def swept():
    while True:
        sweep()
        time.sleep(0.2)

def send(line):
    queue.dispatch(DispatchRequest(**json.loads(line)))

threading.Thread(target=swept, daemon=True).start()
for line in sys.stdin:
    threading.Thread(target=send, args=(line,), daemon=True).start()
"""
"""A process of a backend whose work runs where it is handed over."""
PUSHED = """
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dispatchers.http import wsgi_app

class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass

make_server("127.0.0.1", int(sys.argv[1]), wsgi_app(), Server, Quiet).serve_forever()
"""
"""A web server with nothing but the endpoint."""
SECRET = "the-secret-of-the-scheduler-of-tests"
SWEEP_EVERY = 1.0
"""Seconds between two calls of the scheduler, where work is pushed."""
CELERY = """
from celery import Celery

app = Celery("anywhere", broker={url!r})
app.conf.update(
    task_default_queue={queue!r},
    broker_transport_options={{
        "visibility_timeout": {window},
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }},
)
"""
DRAMATIQ = """
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url={url!r}, heartbeat_timeout=5000)
broker.declare_queue({queue!r})
"""
RESULT = [3, 4, 7, 9, 11, 100, 12]
"""Of `anywhere.flow` with number 1 and the signal 9."""
EFFECTS = {"add 1 2", "add 1 3", "add 10 1", "side"}


class Site:
    """Queue, journal, workers, and a second backend beside it.

    Args:
        folder: An empty one.

        backend: Its name.

        options: Those of the backend.

        app: Source of the module `anywhere_app`.

        endpoint: The table `[endpoint]`, where work is pushed.

        flows: Further source of the module `anywhere`.

        modules: Those of the tasks.

        environment: Further variables for its workers.
    """

    def __init__(
        self,
        folder: Path,
        backend: str,
        options: dict[str, Any],
        app: str = "",
        *,
        endpoint: str = "",
        flows: str = "",
        modules: str = "anywhere",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.backend = folder, backend
        self.worker_url = options.get("worker_url", "")
        self.sweeps = bool(self.worker_url)
        """A scheduler calls the endpoint while something is waited for."""
        self.environment = {"PYTHONPATH": str(folder), **(environment or {})}
        (folder / "anywhere.py").write_text(FLOWS + flows)
        (folder / "anywhere_app.py").write_text(app)
        (folder / "dispatchers.toml").write_text(
            f'tasks = {json.dumps(modules.split())}\nworkflows = "sqlite:{folder}/journal.db"\n'
            f'target = "t"\n{endpoint}'
            f'[targets.t.side]\nbackend = "sqlite"\npath = "{folder}/side.db"\n'
            f'[targets.t.away]\nbackend = "sqlite"\npath = "{folder}/away/queue.db"\n'
            f'[targets.t.default]\nbackend = "{backend}"\n' + _lines(options)
        )
        self.journal = SQLiteJournal(folder / "journal.db")
        self.dispatcher: Any = None
        self.service: Any = None
        """The stand-in that pushes work."""
        self._next_sweep = 0.0
        if not self.is_here:
            sys.path.insert(0, str(folder))
            kind: Any = load_backend(backend)
            self.dispatcher = kind(**options, alias="default")
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, tuple[str, dict[str, str] | None]] = {}

    @property
    def is_here(self) -> bool:
        """Tell whether work runs in the process that hands it over."""
        return self.backend in ("inline", "thread", "asyncio", "memory")

    def start_worker(
        self, alias: str = "default", name: str = "", environment: dict[str, str] | None = None
    ) -> None:
        """Start a worker of a dispatcher.

        Args:
            alias: The dispatcher.

            name: That of the worker, if it is not the only one.

            environment: Further variables.
        """
        self._started[name or alias] = alias, environment
        with (self.folder / "log").open("ab") as log:
            self.workers[name or alias] = subprocess.Popen(
                [sys.executable, *self._words(alias)],
                cwd=self.folder,
                env={**os.environ, **self.environment, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _words(self, alias: str) -> list[str]:
        if alias == "default" and self.is_here:
            return ["-c", HERE_RUNS]
        if alias == "default" and self.worker_url:
            return ["-c", PUSHED, self.worker_url.rpartition(":")[2]]
        return ["-m", "dispatchers", "worker", alias, "--concurrency", "2"]

    def kill_worker(self, alias: str = "default") -> None:
        worker = self.workers.pop(alias)
        # All at once, with processes of processes: what is left would finish its run.
        processes.kill(processes.family(worker.pid))
        worker.wait()
        assert worker.stdin is not None
        worker.stdin.close()

    def close(self) -> None:
        for alias in list(self.workers):
            self.kill_worker(alias)
        self.journal.close()
        if self.dispatcher is not None:
            self.dispatcher.close()
            sys.path.remove(str(self.folder))
            sys.modules.pop("anywhere_app", None)

    # Executions.

    def send(self, task: str, key: str | None = None, /, **payload: Any) -> None:
        fields = {"task": task, "payload": payload, "idempotency_key": key, "id": uuid4().hex}
        if self.dispatcher is not None:
            self.dispatcher.dispatch(DispatchRequest(**fields)).raise_for_error()
            return
        pipe = self.workers["default"].stdin
        assert pipe is not None
        pipe.write(json.dumps(fields).encode() + b"\n")
        pipe.flush()

    def tell(self, execution: str, kind: str, name: str, body: str | None = None) -> None:
        """Send a signal, or cancel."""
        event = {"kind": kind, "name": name, "body": body}
        self.send(execution.partition("/")[0] + "/turn", execution=execution, event=event)

    def look(self, execution: str) -> Record | None:
        return self.journal.look(execution, timeout=30)

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.log()
            self.supervise()
            if self.sweeps and time.monotonic() > self._next_sweep:
                self.sweep()
            time.sleep(0.05)

    def supervise(self) -> None:
        """Start workers again that have ended, as any supervisor does."""
        for name, worker in list(self.workers.items()):
            if worker.poll() is not None:
                alias, environment = self._started[name]
                self.kill_worker(name)
                self.start_worker(alias, name, environment)

    def sweep(self) -> None:
        """Call the endpoint as a scheduler does, which tries again later."""
        self._next_sweep = time.monotonic() + SWEEP_EVERY
        url, headers = f"{self.worker_url}/dispatchers/sweep", {"Authorization": f"Bearer {SECRET}"}
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, method="POST", headers=headers)
            urllib.request.urlopen(request, timeout=10).close()

    def ended(self, execution: str) -> Record:
        self.until(lambda: (r := self.look(execution)) is not None and r.status.is_end)
        self.judge(execution)
        record = self.look(execution)
        assert record is not None
        return record

    def judge(self, execution: str) -> None:
        """No gap, and no answer twice (D3, D4)."""
        entries = self.journal.entries(execution, timeout=30)
        assert [each.seq for each in entries] == list(range(1, len(entries) + 1))
        told = (EntryKind.DONE, EntryKind.FAILED, EntryKind.FIRED)
        answered = Counter(each.number for each in entries if each.kind in told)
        assert set(answered.values()) <= {1}

    def log(self) -> str:
        return (self.folder / "log").read_text()[-5000:]

    def effects(self) -> Counter[str]:
        file = self.folder / "effects"
        return Counter(file.read_text().splitlines() if file.exists() else [])


def _lines(options: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())


def forget_queues(url: str, queue: str) -> None:
    """Leave nothing of a queue in a RabbitMQ that others use."""
    from kombu import Connection

    with Connection(url) as connection:
        for end in ("", ".DQ", ".XQ"):
            connection.default_channel.queue_delete(queue + end)
