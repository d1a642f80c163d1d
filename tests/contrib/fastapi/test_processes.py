"""Several server processes, and one that reloads: each has dispatchers of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatchers.testing.servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and forks"),
]

PATIENCE = 60.0
APP = """
import os
from typing import Annotated

from dispatchers_fastapi import after_response, lifespan
from fastapi import FastAPI

from dispatchers import Dispatcher, task

VERSION = 1
app = FastAPI(lifespan=lifespan())


@task(name="web.note")
def note(process: int, number: int) -> None:
    with open("noted", "a") as file:
        file.write(f"{process} {number}\\n")


@app.get("/now/{number}")
async def now(number: int) -> list[object]:
    response = await note.adispatch(os.getpid(), number)
    return [os.getpid(), VERSION, response.status]


@app.get("/later/{number}")
def later(number: int, to: Annotated[Dispatcher, after_response()]) -> list[object]:
    response = note.options(dispatcher=to).dispatch(os.getpid(), number)
    return [os.getpid(), VERSION, response.status]
"""
SETTINGS = """
modules = ["web"]

[targets.t.default]
backend = "sqlite"
path = "queue.sqlite3"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "web.py").write_text(APP)
    (tmp_path / "dispatchers.toml").write_text(SETTINGS)
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "DISPATCHERS_TARGET": "t", "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def serving(folder: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in a process group of its own, and its address."""
    port = free_port()
    filled = [part.format(port=port) for part in command]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *filled],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def get(process: subprocess.Popen[bytes], folder: Path, url: str) -> Any:
    """What the server answers, once it does; each request on a connection of its own."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return httpx.get(url, timeout=PATIENCE).raise_for_status().json()
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError((folder / "log").read_text()[-3000:]) from None
            time.sleep(0.05)


def drained(folder: Path) -> list[str]:
    """What was noted, once a worker has run all there is."""
    done = subprocess.run(
        [sys.executable, "-m", "dispatchers", "worker", "--drain"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted((folder / "noted").read_text().splitlines())


@pytest.mark.parametrize(
    "command",
    [
        "uvicorn web:app --port {port} --workers 2",
        "gunicorn web:app -b 127.0.0.1:{port} -w 2 -k uvicorn.workers.UvicornWorker",
        "gunicorn web:app -b 127.0.0.1:{port} -w 2 -k asgi --preload",
    ],
    ids=["uvicorn", "gunicorn", "gunicorn-asgi-preload"],
)
def test_several_processes_serve_at_once(folder, command):
    """C8: each dispatches, at once and after the response, and nothing is lost or mixed up."""
    expected = []

    with serving(folder, *command.split()) as (process, url):
        until, number = time.monotonic() + PATIENCE, 0
        while len({line.split()[0] for line in expected}) < 2 or number < 20:
            assert time.monotonic() < until, "only one process serves"
            number += 1
            pid, _, status = get(process, folder, f"{url}/now/{number}")
            assert status == "accepted"
            expected.append(f"{pid} {number}")
            pid, _, status = get(process, folder, f"{url}/later/{-number}")
            assert status == "deferred"
            expected.append(f"{pid} {-number}")

    assert drained(folder) == sorted(expected)


def test_a_server_that_reloads_goes_on(folder):
    """What was dispatched by the old code is there, and the new code dispatches."""
    expected = []

    with serving(folder, *["uvicorn", "web:app", "--port", "{port}", "--reload"]) as (process, url):
        pid, version, _ = get(process, folder, f"{url}/later/1")
        expected.append(f"{pid} 1")
        assert version == 1
        (folder / "web.py").write_text(APP.replace("VERSION = 1", "VERSION = 2"))
        until, number = time.monotonic() + PATIENCE, 1
        while version == 1:
            assert time.monotonic() < until, "it did not reload"
            number += 1
            pid, version, _ = get(process, folder, f"{url}/later/{number}")
            expected.append(f"{pid} {number}")

    assert drained(folder) == sorted(expected)


def test_a_server_that_is_misconfigured_does_not_start(folder):
    """C12: its supervisor sees it, and its log says why."""
    (folder / "dispatchers.toml").write_text(SETTINGS.replace("path", "pth"))

    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "web:app", "--port", str(free_port())],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 3
    assert "dispatchers.toml): unknown option; did you mean 'path'?" in done.stdout + done.stderr
