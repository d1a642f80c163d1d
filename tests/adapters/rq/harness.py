"""A queue of RQ's, stepped job by job as our workers take and settle them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from dispatchers_rq import RQDispatcher
from dispatchers_rq._dead_letters import FailedJobs
from dispatchers_rq._execution import SimpleWorker
from dispatchers_rq._leases import Leases, Taken
from dispatchers_rq._message import body_of
from redis import Redis

from dispatchers import BaseDispatcher, ErrorCategory
from dispatchers.testing import Harness, Journal

__all__ = ["TIMEOUT", "Place", "RQHarness", "forget", "run_job", "work"]


def forget(client: Any, *queues: str) -> None:
    """Leave nothing of these queues in a server that others use."""
    for queue in queues:
        places = [f"rq:{kind}:{queue}" for kind in ("scheduled", "failed", "finished", "wip")]
        ids = client.lrange(f"rq:queue:{queue}", 0, -1)
        for place in places:
            ids += client.zrange(place, 0, -1)
        ids += client.hkeys(f"rq:dispatchers:leases:{queue}")
        jobs = [b"rq:job:" + number.partition(b":")[0] for number in ids]
        jobs += [b"rq:results:" + job[len(b"rq:job:") :] for job in jobs]
        keys = [key for job in jobs[: len(ids)] if (key := client.hget(job, "dispatchers_key"))]
        client.delete(f"rq:queue:{queue}", f"rq:dispatchers:leases:{queue}", *places, *jobs, *keys)
        client.srem("rq:queues", f"rq:queue:{queue}")
        if workers := client.smembers(f"rq:workers:{queue}"):
            client.srem("rq:workers", *workers)
            client.delete(f"rq:workers:{queue}", *workers)


def run_job(dispatcher: Any, queue: str) -> Any:
    """Run the next job of a queue as RQ's `SimpleWorker` does, and return its outcome."""
    worker: Any = SimpleWorker(dispatcher, [queue], letters=dispatcher.letters)
    taken = worker.leases.take([queue], worker.name)
    if not isinstance(taken, Taken):
        return None
    job, place = worker._job(taken)
    outcomes: list[Any] = []
    run = worker._run
    worker._run = lambda *args: outcomes.append(run(*args)) or outcomes[0]
    worker.perform_job(job, place)
    worker.connection.close()
    return outcomes[0] if outcomes else job


HERE = Path(__file__).parent
TIMEOUT = 60.0


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("rq_work", HERE / "work.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rq_work"] = module
    spec.loader.exec_module(module)
    return module


work = _module()


class Place:
    """A queue, its configuration in a folder, and workers on it."""

    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.queue = f"worker-{uuid4().hex}"
        self.url = url
        self.options = {
            "url": url,
            "queue": self.queue,
            "lease": 2.0,
            "deadline": 5.0,
            "max_deliveries": 3,
            **options,
        }
        (folder / "rq_work.py").write_text((HERE / "work.py").read_text())
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.options.items()]
        config = 'tasks = ["rq_work"]\ntarget = "t"\n[targets.t.default]\nbackend = "rq"\n'
        (folder / "dispatchers.toml").write_text(config + "\n".join(lines) + "\n")
        self.dispatcher = RQDispatcher(**self.options)
        letters = self.dispatcher._dead_letters()
        assert letters is not None
        self.letters = letters
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A worker, with a log that a failing test shows."""
        command = [sys.executable, "-m", "dispatchers", "worker", "--concurrency", "1", *arguments]
        with (self.folder / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def start_rq(self, *arguments: str) -> subprocess.Popen[bytes]:
        """RQ's own `rq worker`, as the first thing that knows nothing of dispatchers."""
        command = [sys.executable, "-m", "rq.cli", "worker", "--url", self.url]
        with (self.folder / "rq.log").open("ab") as log:
            worker = subprocess.Popen(
                [*command, *arguments, self.queue],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def kill(self) -> None:
        """`kill -9` of every worker and its children."""
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()

    def status(self, number: str | None) -> str:
        """RQ's word for what became of a job."""
        return str(
            (self.dispatcher.broker.client.hget(f"rq:job:{number}", "status") or b"").decode()
        )

    def journal(self) -> Journal:
        return Journal(self.folder / f"{uuid4().hex}.journal")

    def log(self) -> str:
        files = (self.folder / name for name in ("worker.log", "rq.log"))
        return "".join(file.read_text() for file in files if file.exists())

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not true():
            assert time.monotonic() < end, self.log()[-6000:]
            time.sleep(0.02)

    def close(self) -> None:
        self.kill()
        forget(self.dispatcher.broker.client, self.queue)
        self.dispatcher.close()


class RQHarness(Harness):
    """One queue."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.queue = f"conformance-{uuid4().hex}"
        self.client: Any = Redis.from_url(url)
        self.others: list[str] = []

    def queue_name(self, name: str) -> str:
        self.others.append(f"{self.queue}-{name}")
        return self.others[-1]

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        host, port = self.upstream
        wrong = self.dispatcher(url=f"redis://nobody:wrong@{host}:{port}/0")
        yield wrong, ErrorCategory.AUTHENTICATION

    def make_dispatcher(self, **options: Any) -> RQDispatcher:
        return RQDispatcher(**{"url": self.url, "queue": self.queue, **options})

    @property
    def upstream(self) -> tuple[str, int]:
        settings = self.client.connection_pool.connection_kwargs
        return settings.get("host", "localhost"), settings.get("port", 6379)

    def connect(self, host: str, port: int, **options: Any) -> RQDispatcher:
        place = self.url.partition("@")[2] or self.url.partition("://")[2]
        url = self.url.replace(place.partition("/")[0], f"{host}:{port}")
        return self.make_dispatcher(**{"url": url, **options})

    def received(self, dispatcher: Any) -> list[bytes]:
        ids = self.client.lrange(f"rq:queue:{self.queue}", 0, -1)
        ids += self.client.zrange(f"rq:scheduled:{self.queue}", 0, -1)
        ids += self.client.hkeys(f"rq:dispatchers:leases:{self.queue}")
        return [body_of(self.client.hgetall(b"rq:job:" + number)) for number in ids]

    def _leases(self, dispatcher: Any) -> Leases:
        return Leases(dispatcher.broker.client, dispatcher.options)

    def run_next(self, dispatcher: Any) -> object:
        return run_job(dispatcher, self.queue)

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in FailedJobs(dispatcher.broker).list()]

    def crash(self, dispatcher: Any) -> None:
        """The worker is gone, and another one has waited for the length of the lease."""
        leases = self._leases(dispatcher)
        taken = leases.take([self.queue], "conformance")
        assert isinstance(taken, Taken)
        leases._reap(self.queue, taken.id.encode(), f"{taken.token}:0".encode())

    def close(self) -> None:
        forget(self.client, self.queue, *self.others)
        self.client.close()
