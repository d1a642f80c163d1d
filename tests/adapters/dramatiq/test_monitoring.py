"""Sentry's own integration for Dramatiq, with the real SDK, sees our runs as it sees actors."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("sentry_sdk")

PROGRAM = """
import json, time, dramatiq, sentry_sdk
from dramatiq.brokers.stub import StubBroker
from sentry_sdk.integrations.dramatiq import DramatiqIntegration
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.transport import Transport

found = []

class Keep(Transport):
    def capture_envelope(self, envelope):
        found.extend(filter(None, (i.get_event() or i.get_transaction_event() for i in envelope)))

sentry_sdk.init(
    dsn="http://key@127.0.0.1:1/1", transport=Keep, traces_sample_rate=1.0,
    integrations=[DramatiqIntegration()],
)
ignore_logger("dispatchers")

from dispatchers import Backoff, task
from dispatchers_dramatiq import DramatiqDispatcher, register

broker = StubBroker()
dispatcher = DramatiqDispatcher(broker=broker, queue="q")
register(broker, dispatcher)

@task(name="monitored.fail", max_attempts=2, backoff=Backoff(initial=0, jitter=0))
def fail(secret: str) -> None:
    raise OSError("as asked")

with sentry_sdk.start_transaction(name="request") as request:
    fail.options(dispatcher=dispatcher).dispatch("hunter2").raise_for_error()
worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=1)
worker.start()
end = time.monotonic() + 20
while not broker.dead_letters and time.monotonic() < end:
    time.sleep(0.02)
worker.stop()
sentry_sdk.flush()
print(json.dumps([request.trace_id, found], default=str))
"""


def test_sentry_has_a_transaction_per_run_and_one_event_per_failure() -> None:
    """The trace goes on, the stack is the task's, and no argument is told."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    text = done.stdout.splitlines()[-1]
    trace, found = json.loads(text)
    runs = [each for each in found if each.get("transaction") == "monitored.fail"]
    transactions = [each for each in runs if each.get("type") == "transaction"]
    events: list[Any] = [each for each in runs if each.get("type") != "transaction"]

    assert len(transactions) == 2
    assert {each["contexts"]["trace"]["trace_id"] for each in runs} == {trace}
    (event,) = events
    raised = event["exception"]["values"][-1]
    assert raised["type"] == "OSError"
    assert raised["stacktrace"]["frames"][-1]["function"] == "fail"
    for each in runs:
        assert "hunter2" not in json.dumps(each.get("contexts"))
