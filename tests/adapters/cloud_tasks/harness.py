"""A queue of a stand-in that runs in a process of its own, and the worker's real endpoint."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from uuid import uuid4
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import grpc
from dispatchers_cloud_tasks import CloudTasksDispatcher
from google.api_core import exceptions as api
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

from dispatchers import BaseDispatcher, ErrorCategory
from dispatchers.http import Endpoint, EndpointSettings, OidcSettings, wsgi_app
from dispatchers.stores import dead_letters
from dispatchers.testing import Harness

from .service import Service

__all__ = ["CloudTasksHarness", "Worker", "official_client"]

ACCOUNT = "worker@standin.iam.gserviceaccount.com"
PATIENCE = 30.0


def official_client(address: str) -> tasks_v2.CloudTasksClient:
    """The unmodified client, as its documentation makes one for an endpoint without TLS."""
    channel = grpc.insecure_channel(address)
    return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class Worker:
    """A web server with nothing but the endpoint; it can die in the midst of a request."""

    def __init__(self) -> None:
        self.dies = False
        self.statuses: list[int] = []
        self.server = _Server(("127.0.0.1", 0), _Quiet)
        self.server.set_app(self._answer)
        self.app: Any = None
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _answer(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        if self.dies:
            self.dies = False
            self.statuses.append(0)
            raise ConnectionAbortedError

        def start(status: str, headers: Any) -> Any:
            self.statuses.append(int(status[:3]))
            return start_response(status, headers)

        yield from self.app(environ, start)

    def serve(self, settings: EndpointSettings) -> None:
        self.app = wsgi_app(Endpoint(settings))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class CloudTasksHarness(Harness):
    """One paused queue; `RunTask` delivers its tasks one by one."""

    secrets = ("the-token-of-the-stand-in",)

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.letters = f"sqlite:{folder / 'dead.db'}"
        self.queue = f"conformance-{uuid4().hex[:12]}"
        self.client = service.client
        self.name = service.create_queue(self.queue)
        self.client.pause_queue(name=self.name)
        self.others: list[str] = []
        self.worker = Worker()

    def make_dispatcher(self, **options: Any) -> CloudTasksDispatcher:
        return CloudTasksDispatcher(
            **{
                **self.service.options(self.queue),
                "worker_url": self.worker.url,
                "service_account": ACCOUNT,
                "dead_letters": self.letters,
                "token": self.secrets[0],
                **options,
            }
        )

    @property
    def upstream(self) -> tuple[str, int]:
        return self.service.host, self.service.port

    def connect(self, host: str, port: int, **options: Any) -> CloudTasksDispatcher:
        return self.make_dispatcher(endpoint=f"{host}:{port}", **options)

    def queue_name(self, name: str) -> str:
        queue = f"{self.queue}-{name}"
        self.others.append(self.service.create_queue(queue))
        self.client.pause_queue(name=self.others[-1])
        return queue

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        yield self.dispatcher(queue=f"{self.queue}-missing"), ErrorCategory.NOT_FOUND

    @contextlib.contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Iterator[None]:
        """The client's calls raise; the adapter's own code is judged with the rest."""

        def call(*args: object, **kwargs: object) -> Any:
            raise exc

        client = dispatcher.broker.connection(PATIENCE).client
        client.create_task = client.batch_create_tasks = call
        try:
            yield
        finally:
            del client.create_task, client.batch_create_tasks

    def _tasks(self) -> list[Any]:
        request = {"parent": self.name, "response_view": tasks_v2.Task.View.FULL}
        return list(self.client.list_tasks(request=request))

    def received(self, dispatcher: Any) -> list[bytes]:
        return [task.http_request.body for task in self._tasks()]

    def run_next(self, dispatcher: Any) -> object:
        task = self._due()
        if task is None:
            return None
        self._serve(dispatcher)
        self._run(task)
        return task

    def _due(self) -> Any:
        now = time.time()
        due = [task for task in self._tasks() if task.schedule_time.timestamp() <= now]
        return min(due, key=lambda task: task.schedule_time.timestamp(), default=None)

    def _run(self, task: Any) -> None:
        """Have it delivered, and wait for what became of it."""
        self.client.run_task(name=task.name)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                found = self.client.get_task(name=task.name)
            except api.NotFound:
                return
            answered = found.last_attempt.response_status.message
            if found.dispatch_count > task.dispatch_count and answered:
                return
            time.sleep(0.002)
        raise AssertionError("the task was not delivered")

    def _serve(self, dispatcher: Any) -> None:
        options = dispatcher.options
        self.worker.serve(
            EndpointSettings(
                worker=True,
                oidc=OidcSettings(
                    audience=self.worker.url,
                    emails=ACCOUNT,
                    issuer=self.service.issuer,
                    keys_url=self.service.keys_url,
                ),
                dead_letters=options.dead_letters,
                idempotency=options.idempotency,
                skew_grace=options.skew_grace,
                max_attempts=options.max_deliveries,
            )
        )

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dead_letters(self.letters).list()]

    def crash(self, dispatcher: Any) -> None:
        self.worker.dies = True
        until = time.monotonic() + PATIENCE
        while (task := self._due()) is None and time.monotonic() < until:
            time.sleep(0.01)
        self._run(task)

    def close(self) -> None:
        with contextlib.suppress(api.GoogleAPICallError):
            for name in (self.name, *self.others):
                self.client.delete_queue(name=name)
        self.worker.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
