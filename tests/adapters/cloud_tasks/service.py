"""The stand-in as users start it: `dispatchers dev`, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from google.protobuf import duration_pb2

from dispatchers.testing import processes

PREFIX = "DISPATCHERS_TARGETS__DEV__DEFAULT__"
PATIENCE = 60.0


class Service:
    """A process that may be killed and started again at the same ports."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.folder = folder
        self._options: dict[str, object] = {"port": 0, "http_port": 0, **options}
        self._client: Any = None
        self.start()

    def start(self) -> None:
        """Start, and return when it answers."""
        words = [f"{key}={json.dumps(value)}" for key, value in self._options.items()]
        command = [sys.executable, "-m", "dispatchers", "dev", "cloud_tasks", *words, "--json"]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        watch = threading.Timer(PATIENCE, self.process.kill)
        watch.start()
        self.settings = json.loads(_document(self.process))
        watch.cancel()
        own = self.settings["every process"]
        self.host, _, port = own[f"{PREFIX}ENDPOINT"].partition(":")
        self.port = int(port)
        worker = self.settings["the worker"]
        self.issuer = worker["DISPATCHERS_ENDPOINT__OIDC__ISSUER"]
        self.keys_url = worker["DISPATCHERS_ENDPOINT__OIDC__KEYS_URL"]
        http_port = int(self.issuer.rpartition(":")[2])
        self._options |= {"port": self.port, "http_port": http_port}

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def parent(self) -> str:
        return "projects/dev/locations/local"

    @property
    def client(self) -> Any:
        """The official client."""
        from .harness import official_client

        if self._client is None:
            self._client = official_client(self.address)
        return self._client

    def create_queue(self, queue: str, min_backoff: float = 0.05) -> str:
        """Make a queue; its full name."""
        name = f"{self.parent}/queues/{queue}"
        wait = duration_pb2.Duration(nanos=round(min_backoff * 1e9))
        self.client.create_queue(
            parent=self.parent, queue={"name": name, "retry_config": {"min_backoff": wait}}
        )
        return name

    def options(self, queue: str = "default") -> dict[str, Any]:
        """Those of a dispatcher for it."""
        return {
            "project": "dev",
            "location": "local",
            "queue": queue,
            "worker_url": "http://127.0.0.1:9",
            "service_account": "worker@standin.iam.gserviceaccount.com",
            "endpoint": self.address,
        }

    def kill(self) -> None:
        """As by `kill -9`."""
        self.process.kill()
        self._gone()

    def pause(self) -> None:
        processes.pause(self.process.pid)

    def resume(self) -> None:
        processes.resume(self.process.pid)

    def stop(self) -> None:
        """As by Ctrl-C."""
        self.process.terminate()
        self._gone()

    def _gone(self) -> None:
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.transport.close()
        if self.process.poll() is None:
            self.stop()


def _document(process: subprocess.Popen[str]) -> str:
    """The first JSON document that it says: up to the brace that stands alone."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            return "".join(lines)
    raise AssertionError(f"the stand-in ended: {lines}")
