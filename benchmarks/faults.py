"""The table of faults in docs/faults.md: `python -m benchmarks.faults [--write] [adapter ...]`.

Each client makes a call that succeeds, then the broker fails, then it makes two more; when all is
well again, what is in the queue is counted. Raw clients are used as they come, with no settings.
"""

from __future__ import annotations

import argparse
import json
import queue as queues
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from dispatchers.testing.faults import FAULTS, Scene

from .__main__ import machine

CAP = 20.0
"""Seconds after which a call that has not come back is left alone."""
SETTLE = 1.0
"""Seconds for a broker that is back to take what has waited for it."""
ADAPTERS = {
    "celery/redis": ("celery", "redis"),
    "celery/rabbitmq": ("celery", "rabbitmq"),
    "rq": ("rq", "redis"),
    "dramatiq/redis": ("dramatiq", "redis"),
    "dramatiq/rabbitmq": ("dramatiq", "rabbitmq"),
    "django_rq": ("django_rq", "redis"),
    "django_q/redis": ("django_q", "redis"),
    "django_tasks/django-tasks-rq": ("django_tasks", "redis"),
    "sqs": ("sqs", "sqs"),
}
KEYS = {
    "celery": "{}",
    "rq": "rq:queue:{}",
    "dramatiq": "dramatiq:{}",
    "django_rq": "rq:queue:{}",
    "django_q": "django_q:{}:q",
    "django_tasks": "rq:queue:{}",
}
"""The list in Redis that a queue is."""
KEEPS_NOTHING = ("down", "restarted")
"""Faults after which the stand-in for SQS has nothing that could be counted."""
OF_NAMES = ("no such name", "silent name server")
REPORT = Path(__file__).parents[1] / "docs" / "faults.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


class Answer(NamedTuple):
    """What came of the two calls."""

    took: list[float]
    said: list[str]
    there: int | None
    """How many of the two are in the queue."""

    def cell(self) -> str:
        times = " / ".join(f"{t:.2f}" if t < CAP else f"> {CAP:.0f}" for t in self.took)
        words = " / ".join(dict.fromkeys(self.said))
        return f"{times} s: {words}{self.verdict()}"

    def verdict(self) -> str:
        """What the caller could not know."""
        if self.there is None:
            return ""
        good = sum(word in ("returned", "accepted") for word in self.said)
        if self.there < good:
            return f", **{good - self.there} lost**"
        return f", {self.there - good} delivered" if self.there > good else ""


class Caller:
    """A process that makes the calls."""

    def __init__(self, side: str, url: str, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._caller", side, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queues.Queue[str] = queues.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        first = self._lines.get(timeout=60)
        if first != "ready\n":
            raise RuntimeError(f"{side} made no call while all was well")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def call(self) -> tuple[float, str]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        try:
            took, said = json.loads(self._lines.get(timeout=CAP))
        except queues.Empty:
            return CAP, "hangs"
        return took, said

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def answer(scene: Scene, side: str, fault: str) -> Answer:
    """Both calls of one client in one fault."""
    name = f"faults-{uuid4().hex}"
    uncounted = OF_NAMES
    if scene.kind == "sqs":
        name, uncounted = "faults", OF_NAMES + KEEPS_NOTHING
    before = length(scene, side, name) if scene.kind == "sqs" else 0
    caller = Caller(side, scene.url_for(fault), name)
    scene.begin(fault)
    calls = [caller.call()]
    if calls[0][0] < CAP:
        calls.append(caller.call())
    scene.end()
    time.sleep(SETTLE)
    caller.end()
    there = None if fault in uncounted else length(scene, side, name) - before - 1
    return Answer([took for took, _ in calls], [said for _, said in calls], there)


def length(scene: Scene, side: str, name: str) -> int:
    """How much is in the queue."""
    if scene.kind == "rabbitmq":
        return _messages(scene.server.url, name)
    if scene.kind == "sqs":
        return len(scene.server.held(name))
    import redis

    client: Any = redis.Redis.from_url(scene.server.url)
    return int(client.llen(KEYS[side.partition(":")[2]].format(name)))


def _messages(url: str, name: str) -> int:
    from kombu.connection import Connection

    with Connection(url) as connection:
        channel: Any = connection.channel()
        return int(channel.queue_declare(queue=name, passive=True).message_count)


def rows(adapter: str) -> list[str]:
    """The table of one adapter."""
    backend, kind = ADAPTERS[adapter]
    found = [f"\n### {adapter}\n", "| fault | the client alone | this adapter |", "|---|---|---|"]
    print("\n".join(found), flush=True)
    with _scene(kind) as scene:
        for fault, meant in FAULTS.items():
            if kind in meant.kinds or (kind == "sqs" and len(meant.kinds) > 1):
                raw, own = (answer(scene, f"{who}:{backend}", fault) for who in ("raw", "ours"))
                found.append(f"| {meant.text} | {raw.cell()} | {own.cell()} |")
                print(found[-1], flush=True)
    return found


def _scene(kind: str) -> Scene:
    if kind != "sqs":
        return Scene(kind)
    # Late: of the tests, with what they need.
    from tests.adapters.sqs.service import Service

    return Scene(kind, server=Service("faults"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("adapters", nargs="*", metavar="adapter", help=", ".join(ADAPTERS))
    parser.add_argument("--write", action="store_true", help="into docs/faults.md")
    options = parser.parse_args()
    lines = [machine()]
    for adapter in options.adapters or ADAPTERS:
        lines += rows(adapter)
    if options.write:
        head, _, rest = REPORT.read_text().partition(BEGIN)
        REPORT.write_text(
            f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}"
        )


if __name__ == "__main__":
    main()
