"""`dispatchers dev cloud_tasks`: what it prints is all that dispatcher and worker need."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from dispatchers_cloud_tasks.standin import StandIn

from .harness import free_port
from .web import eventually

SHOP = """
from pathlib import Path
from dispatchers import current_run, task

@task(name="shop.pack", max_attempts=3)
def pack(file: str, order: int) -> None:
    if order < 0:
        raise TypeError("no such order")
    if order == 2 and current_run().attempt == 1:
        raise OSError("try again")
    with Path(file).open("a") as out:
        out.write(f"{order} {current_run().attempt}\\n")
"""
WEB = """
import sys
from shop import pack
for order in (1, 2, -1):
    print(pack.dispatch(sys.argv[1], order).status)
"""
WORKER = """
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
import shop
from dispatchers.http import wsgi_app
print("ready", flush=True)
make_server("127.0.0.1", int(sys.argv[1]), wsgi_app()).serve_forever()
"""


def dev(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "dispatchers", "dev", *words, "--dir", str(folder)]


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("DISPATCHERS_")}


def exported(process: subprocess.Popen[str]) -> dict[str, dict[str, str]]:
    """What a shell would have after sourcing the lines, by the processes they are for."""
    found: dict[str, dict[str, str]] = {}
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("# ready"):
            return found
        if line.startswith("# "):
            group = found.setdefault(line[2:].strip(), {})
        else:
            name, _, value = shlex.split(line)[1].partition("=")
            group[name] = value
    raise AssertionError("it ended")


def test_web_and_worker_need_only_what_is_printed(tmp_path: Path) -> None:
    """Dispatched, retried and dead-lettered through the real endpoint, with real tokens."""
    for name, text in {"shop.py": SHOP, "web.py": WEB, "worker.py": WORKER}.items():
        (tmp_path / name).write_text(text)
    port = free_port()
    words = [
        "port=0",
        "http_port=0",
        "token=12345",
        "min_backoff=0.05",
        f"worker_url=http://127.0.0.1:{port}",
    ]
    with (
        subprocess.Popen(
            dev(tmp_path / "dev", "cloud_tasks", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=clean(),
        ) as standin,
    ):
        watch = threading.Timer(60, standin.kill)
        watch.start()
        said = exported(standin)
        everywhere = {**clean(), **said["every process"], "PYTHONPATH": str(tmp_path)}
        letters = f"sqlite:{tmp_path / 'dead.db'}"
        worker = {"DISPATCHERS_ENDPOINT__DEAD_LETTERS": letters, **said["the worker"]}
        command = [sys.executable, "worker.py", str(port)]
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**everywhere, **worker},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            out = tmp_path / "out"
            web = subprocess.run(
                [sys.executable, "web.py", str(out)],
                cwd=tmp_path,
                env=everywhere,
                capture_output=True,
                text=True,
                check=True,
            )
            packed = eventually(lambda: out.exists() and len(out.read_text().splitlines()) == 2)
            dead = eventually(lambda: _dead(tmp_path / "dead.db"))
            server.kill()
        standin.send_signal(signal.SIGTERM)
        code = standin.wait(30)
        watch.cancel()

    assert web.stdout.split() == ["accepted"] * 3
    assert packed
    assert sorted(out.read_text().splitlines()) == ["1 1", "2 2"]
    assert dead
    assert code == 0


def _dead(path: Path) -> Any:
    from dispatchers.stores import dead_letters

    return path.exists() and dead_letters(f"sqlite:{path}").list()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cloud_task"], "did you mean 'cloud_tasks'"),
        (["cloud_tasks", "prot=1"], "no option 'prot'; did you mean 'port'?"),
        (["cloud_tasks", "port=abc"], "port: "),
        (["cloud_tasks", "http_port=99999"], "http_port: "),
        (["cloud_tasks", "min_backoff=-1"], "min_backoff: "),
        (["cloud_tasks", "worker_url=8000"], "worker_url: "),
        (["cloud_tasks", "target=my-target"], "target: "),
        (["cloud_tasks", "queues=a/b"], "'a/b' is not a name"),
        (["cloud_tasks", "host=0.0.0.0"], "not the loopback"),
        (["cloud_tasks", 'misbehave={"explode": 1}'], "explode"),
        (["cloud_tasks", "queues=,"], "queues names none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_told(tmp_path: Path, words: list[str], said: str) -> None:
    done = subprocess.run(
        dev(tmp_path, *words), capture_output=True, text=True, env=clean(), check=False
    )

    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


def test_a_port_that_is_taken_is_told(tmp_path: Path, standin: StandIn) -> None:
    words = ["cloud_tasks", f"port={standin.port}", "http_port=0"]

    done = subprocess.run(
        dev(tmp_path / "other", *words), capture_output=True, text=True, env=clean(), check=False
    )

    assert done.returncode == 2, done.stderr
    assert str(standin.port) in done.stderr


def test_as_json_it_is_for_programs(tmp_path: Path) -> None:
    words = ["cloud_tasks", "port=0", "http_port=0", "target=gcp", "queues=default,mail", "--json"]
    with subprocess.Popen(
        dev(tmp_path, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean(),
    ) as process:
        assert process.stdout is not None
        text = "".join(iter(process.stdout.readline, "}\n")) + "}"
        process.send_signal(signal.SIGINT)
        code = process.wait(30)

    found = json.loads(text)["every process"]
    assert found["DISPATCHERS_TARGET"] == "gcp"
    assert found["DISPATCHERS_TARGETS__GCP__DEFAULT__QUEUE"] == "default"
    assert code == 0
