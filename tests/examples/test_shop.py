"""The shop runs the same code on every backend, by changing one variable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.connection import Connection
from redis import Redis

from dispatchers.testing import processes
from dispatchers.testing.servers import (
    MissingServerError,
    RedisServer,
    free_port,
    rabbitmq_url,
    redis_url,
)

pytestmark = pytest.mark.slow  # whole projects, processes by the dozen

SHOP = Path(__file__).parents[2] / "examples" / "shop"
SERVERS = {
    "redis": redis_url,
    "rq": redis_url,
    "rabbitmq": rabbitmq_url,
    "dramatiq": rabbitmq_url,
    "dramatiq_redis": redis_url,
}


def _variables(target: str) -> dict[str, str]:
    """The target, and for a broker its address and a queue of the test's own."""
    place = f"DISPATCHERS_TARGETS__{target.upper()}__DEFAULT__"
    found = {"DISPATCHERS_TARGET": target}
    if target in SERVERS:
        try:
            found[f"{place}URL"] = SERVERS[target]()
        except MissingServerError as exc:
            if os.environ.get("DISPATCHERS_REQUIRE_SERVICES"):
                raise
            pytest.skip(f"needs {target}: {exc}")
        found[f"{place}QUEUE"] = f"shop-{uuid4().hex}"
    return found


def _run(
    folder: Path, variables: dict[str, str], *command: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _forget(url: str, queue: str) -> None:
    """Leave nothing in a server that others share."""
    if url.startswith("redis"):
        with Redis.from_url(url) as client:
            finished: Any = client.zrange(f"rq:finished:{queue}", 0, -1)
            jobs = [f"rq:job:{number.decode()}" for number in finished]
            client.srem("rq:queues", f"rq:queue:{queue}")
            client.delete("rq:nothing", *jobs, *client.scan_iter(f"*{queue}*"))
    else:
        with Connection(url) as connection:
            for end in ("", ".DQ", ".XQ"):
                connection.channel().queue_delete(f"{queue}{end}")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHOP, tmp_path / "shop"))


@pytest.mark.parametrize("target", ["inline", "sqlite", *SERVERS])
def test_the_same_code_runs_on_every_backend(shop: Path, target: str) -> None:
    """Orders are placed, a worker runs them, each mail is tried twice."""
    variables = _variables(target)

    placed = _run(shop, variables, "shop", "order", "3")
    assert placed.returncode == 0, placed.stdout + placed.stderr
    if target != "inline":
        worked = _run(shop, variables, "dispatchers", "worker", "--drain", "--concurrency", "1")
        assert worked.returncode == 0, worked.stdout + worked.stderr
        assert "AMQP stack" not in worked.stderr  # pika's, of every connection

    if target in SERVERS:
        place = f"DISPATCHERS_TARGETS__{target.upper()}__DEFAULT__"
        _forget(variables[f"{place}URL"], variables[f"{place}QUEUE"])
    said = "executed" if target == "inline" else "accepted"
    assert placed.stdout.split() == [said] * 3
    assert _run(shop, variables, "shop", "report").stdout == (
        "3 orders, 59.70 in all; 3 mails, attempt 2\n"
    )


def test_no_two_clients_share_a_queue_of_rabbitmq() -> None:
    """RabbitMQ has one namespace, and each client declares its queues its own way."""
    targets = tomllib.loads((SHOP / "dispatchers.toml").read_text())["targets"]
    amqp = [
        each["default"] for each in targets.values() if "amqp" in each["default"].get("url", "")
    ]
    assert len({each["queue"] for each in amqp}) == len(amqp) == 2


def test_a_broker_that_is_down_is_an_answer(shop: Path) -> None:
    """C1: nothing is raised; the answer says what is wrong."""
    variables = {
        "DISPATCHERS_TARGET": "redis",
        "DISPATCHERS_TARGETS__REDIS__DEFAULT__URL": f"redis://127.0.0.1:{free_port()}/0",
    }

    placed = _run(shop, variables, "shop", "order", "1")

    assert placed.returncode == 1
    assert placed.stdout.startswith("rejected no connection to the broker")
    assert "Traceback" not in placed.stderr


def test_an_outbox_loses_nothing_while_the_broker_is_stopped(shop: Path) -> None:
    """Orders are taken all the while, and run once it is back; who placed them is long gone."""
    with RedisServer() as redis:
        variables = {
            "DISPATCHERS_TARGET": "outbox",
            "DISPATCHERS_TARGETS__OUTBOX__BROKER__URL": redis.url,
        }
        before = _run(shop, variables, "shop", "order", "3")
        worker = subprocess.Popen(
            [sys.executable, "-m", "dispatchers", "worker", "--concurrency", "1"],
            cwd=shop,
            env={**os.environ, **variables},
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(shop, "3 orders, 59.70 in all; 3 mails, attempt 2\n")
            redis.stop()
            during = [_run(shop, variables, "shop", "order", "3") for _ in range(4)]
            redis.start()
            _wait_for(shop, "15 orders, 298.50 in all; 15 mails, attempt 2\n")
        finally:
            processes.kill(processes.family(worker.pid))
            worker.wait()

    assert [each.returncode for each in [before, *during]] == [0] * 5
    assert [each.stdout.split() for each in [before, *during]] == [["deferred"] * 3] * 5


def _wait_for(shop: Path, report: str) -> None:
    processes.wait_until(
        lambda: _run(shop, {}, "shop", "report").stdout == report, f"it was never {report!r}"
    )
