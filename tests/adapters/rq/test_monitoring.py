"""The recipes of docs/monitoring.md, with the real libraries, in RQ's workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from .harness import forget

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="RQ's workers fork")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "monitoring.md"
TASKS = """
from dispatchers import Backoff, task


@task(name="shop.pack", max_attempts=2, backoff=Backoff(initial=0))
def pack(parcel: str) -> None:
    if parcel == "broken":
        raise ValueError("no such parcel")
"""
SENTRY = """
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
OPENTELEMETRY = """
import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

file = open(os.environ["SEEN"], "a")
exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""

SHOW = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from shop.metrics import QueueCollector

registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
registry.register(QueueCollector())
print(generate_latest(registry).decode())
"""


class Shop:
    """An application with a recipe of the page as its hooks."""

    def __init__(self, url: str, folder: Path, setup: str = "", **options: Any) -> None:
        self.folder, self.url = folder, url
        self.queue = f"monitoring-{uuid4().hex}"
        self.seen = folder / "seen"
        self.environment = {
            **os.environ,
            "SEEN": str(self.seen),
            "PYTHONPATH": str(folder),
            "PYTHONWARNINGS": "ignore",
        }
        options = {"backend": "rq", "url": url, "queue": self.queue, "lease": 2.0, **options}
        lines = [f"{key} = {json.dumps(value)}" for key, value in options.items()]
        (folder / "shop").mkdir()
        (folder / "shop" / "__init__.py").write_text("")
        (folder / "shop" / "tasks.py").write_text(TASKS)
        (folder / "shop" / "setup.py").write_text(setup)
        (folder / "head.toml").write_text("\n".join(["[targets.t.default]", *lines]))

    def use(self, *modules: str) -> None:
        """Write the page's modules, and the configuration that names them."""
        blocks = re.findall(r"```py\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
        for name, source in blocks:
            (self.folder / name).write_text(source)
        hooks = json.dumps(["shop.setup", *modules])
        head = f'target = "t"\ntasks = ["shop.tasks"]\nhooks = {hooks}\n'
        rest = (self.folder / "head.toml").read_text()
        (self.folder / "dispatchers.toml").write_text(head + rest + "\n")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dispatch(self, before: str = "", around: str = "if True") -> None:
        """Dispatch a good parcel and a broken one from a program of its own."""
        lines = [
            "from shop.tasks import pack",
            before,
            f"{around}:",
            "    pack.dispatch('good').raise_for_error()",
            "    pack.dispatch('broken').raise_for_error()",
        ]
        self.run("-c", "\n".join(lines))

    def work(self) -> str:
        return self.run("-m", "dispatchers", "worker", "--concurrency", "1", "--drain")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.seen.read_text().splitlines()]

    def close(self) -> None:
        client = redis.Redis.from_url(self.url)
        forget(client, self.queue)
        client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def shops() -> Iterator[list[Shop]]:
    made: list[Shop] = []
    yield made
    for shop in made:
        shop.close()


@pytest.mark.slow
@pytest.mark.parametrize("horses", [True, False])
def test_sentry_sees_runs_under_rq(
    shared_redis: str, folder: Path, shops: list[Shop], horses: bool
) -> None:
    """One transaction per run, continuing the trace; one event per failure, with its stack."""
    pytest.importorskip("sentry_sdk")
    shop = Shop(shared_redis, folder, SENTRY, horses=horses)
    shops.append(shop)
    shop.use("shop.sentry_hooks")
    shop.dispatch(
        "import sentry_sdk, shop.setup",
        "with sentry_sdk.start_transaction(name='web', op='http.server')",
    )

    shop.work()

    found = shop.lines
    (web,) = [each for each in found if each.get("transaction") == "web"]
    runs = [each for each in found if each.get("transaction") == "dispatchers_rq.run.shop.pack"]
    (failed,) = [each for each in runs if each.get("type") != "transaction"]
    frames = failed["exception"]["values"][-1]["stacktrace"]["frames"]
    transactions = [each for each in runs if each.get("type") == "transaction"]
    assert len(transactions) == 3
    assert {each["contexts"]["trace"]["trace_id"] for each in found} == {
        web["contexts"]["trace"]["trace_id"]
    }
    assert failed["exception"]["values"][-1]["type"] == "ValueError"
    assert frames[-1]["function"] == "pack"
    assert not any("broken" in json.dumps(each.get("extra", {})) for each in runs)


def test_sentry_sees_runs_of_other_backends(
    shared_redis: str, folder: Path, shops: list[Shop]
) -> None:
    """The hooks alone give the same: on `sqlite`, transaction, trace and one event per failure."""
    pytest.importorskip("sentry_sdk")
    shop = Shop(shared_redis, folder, SENTRY)
    shops.append(shop)
    (folder / "head.toml").write_text('[targets.t.default]\nbackend = "sqlite"\npath = "work"')
    shop.use("shop.sentry_hooks", "shop.sentry_runs")
    shop.dispatch(
        "import sentry_sdk, shop.setup",
        "with sentry_sdk.start_transaction(name='web', op='http.server')",
    )

    shop.work()

    found = shop.lines
    runs = [each for each in found if each.get("transaction") == "shop.pack"]
    assert len([each for each in runs if each.get("type") == "transaction"]) == 3
    assert len([each for each in runs if "exception" in each]) == 1
    assert len({each["contexts"]["trace"]["trace_id"] for each in found}) == 1


def test_opentelemetry_links_runs_to_their_dispatch(
    shared_redis: str, folder: Path, shops: list[Shop]
) -> None:
    """A producer's span per dispatch, a consumer's per run, linked; failures are recorded."""
    pytest.importorskip("opentelemetry.sdk")
    shop = Shop(shared_redis, folder, OPENTELEMETRY)
    shops.append(shop)
    shop.use("shop.tracing")
    shop.dispatch()

    shop.work()

    spans = shop.lines
    created = [each for each in spans if each["kind"] == "SpanKind.PRODUCER"]
    processed = [each for each in spans if each["kind"] == "SpanKind.CONSUMER"]
    ids = {each["context"]["span_id"] for each in created}
    linked = [each["links"][0]["context"]["span_id"] for each in processed]
    reasons = sorted(each["attributes"]["dispatchers.reason"] for each in processed)
    assert len(created) == 2
    assert set(linked) == ids
    assert reasons == ["exhausted", "failed", "succeeded"]
    assert [each["status"]["status_code"] for each in processed].count("ERROR") == 1
    assert all("no such parcel" not in json.dumps(each["attributes"]) for each in spans)


def test_prometheus_counts_dispatches_runs_and_queues(
    shared_redis: str, folder: Path, shops: list[Shop]
) -> None:
    """Counters of both sides in one directory, and the queue's figures when asked for."""
    pytest.importorskip("prometheus_client")
    shop = Shop(shared_redis, folder, horses=False)
    shops.append(shop)
    (folder / "metrics").mkdir()
    shop.environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
    shop.use("shop.metrics")
    shop.dispatch()
    before = shop.run("-c", SHOW)
    shop.work()
    after = shop.run("-c", SHOW)

    assert 'dispatchers_dispatches_total{dispatcher="default",status="accepted"} 2.0' in before
    assert f'dispatchers_queue_waiting{{queue="{shop.queue}"}} 2.0' in before
    assert 'dispatchers_run_seconds_count{reason="exhausted",task="shop.pack"} 1.0' in after
    assert f'dispatchers_queue_waiting{{queue="{shop.queue}"}} 0.0' in after


def test_every_recipe_of_the_page_is_run() -> None:
    """No block is written that nothing has run."""
    named = re.findall(r"```py\n# shop/(\w+)\.py", PAGE.read_text())

    assert named == ["sentry_hooks", "sentry_runs", "metrics", "tracing"]
