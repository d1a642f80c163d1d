"""The recipe for Sentry of docs/monitoring.md, with the real SDK, in Celery's worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_celery import CeleryDispatcher

from .harness import delete_queues

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Celery's pool forks")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"
TASKS = """
from dispatchers import Backoff, task


@task(name="shop.pack", max_attempts=2, backoff=Backoff(initial=0))
def pack(parcel: str) -> None:
    if parcel == "broken":
        raise ValueError("no such parcel")
"""
SETUP = """
import json
import os

import sentry_sdk
from sentry_sdk.transport import Transport


class ToFile(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            if item.type in ("event", "transaction"):
                with open(os.environ["SEEN"], "a") as file:
                    file.write(json.dumps(item.payload.json) + "\\n")


sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", transport=ToFile, traces_sample_rate=1.0)
"""
DISPATCH = """
import sentry_sdk, shop.setup
from shop.tasks import pack
with sentry_sdk.start_transaction(name="request") as request:
    print(request.trace_id)
    pack.dispatch("good").raise_for_error()
    pack.dispatch("broken").raise_for_error()
"""


def run(folder: Path, *arguments: str) -> str:
    environment = {
        "SEEN": str(folder / "seen"),
        "PYTHONPATH": str(folder),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    print(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_sentry_has_one_transaction_per_run_and_one_event_per_failure(
    request: pytest.FixtureRequest, broker: str, tmp_path: Path
) -> None:
    """The worker's transactions continue the trace, and a failure is told once, with its stack."""
    options = {"url": request.getfixturevalue(f"shared_{broker}"), "queue": f"sentry-{uuid4().hex}"}
    recipe = re.search(r"```py\n# shop/sentry_hooks.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert recipe is not None
    (tmp_path / "shop").mkdir()
    for name, text in {
        "shop/__init__.py": "",
        "shop/tasks.py": TASKS,
        "shop/setup.py": SETUP,
        "shop/sentry_hooks.py": recipe[1],
        "dispatchers.toml": f"""
target = "t"
tasks = ["shop.tasks"]
hooks = ["shop.setup", "shop.sentry_hooks"]
[targets.t.default]
backend = "celery"
url = {json.dumps(options["url"])}
queue = {json.dumps(options["queue"])}
""",
    }.items():
        (tmp_path / name).write_text(text)

    trace = run(tmp_path, "-c", DISPATCH).strip()
    run(tmp_path, "-m", "dispatchers", "worker", "--concurrency", "1", "--drain")
    told: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()
    ]
    delete_queues(CeleryDispatcher(**options).broker.app, options["queue"])

    runs = [each for each in told if each.get("transaction") == "shop.pack"]
    transactions = [each for each in runs if each.get("type") == "transaction"]
    events = [each for each in told if each.get("type") != "transaction"]
    assert len(transactions) == 3
    assert {each["contexts"]["trace"]["trace_id"] for each in transactions} == {trace}
    assert [each["exception"]["values"][-1]["type"] for each in events] == ["ValueError"]
    assert events[0]["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "pack"
