"""Run the cases and print the table: `python -m benchmarks [--write] [case ...]`."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from . import celery_peer, cloud_tasks_peer, endpoint, footprint, inprocess, store, worker
from ._measure import Figure

CASES: dict[str, Callable[[], Iterator[Figure]]] = {
    "inline": inprocess.inline,
    "thread": inprocess.thread,
    "guard": inprocess.guard,
    "breaker": inprocess.breaker,
    "sqlite": store.dispatch,
    "worker": worker.against_huey,
    "million": worker.with_a_million,
    "celery-redis": celery_peer.on_redis,
    "celery-rabbitmq": celery_peer.on_rabbitmq,
    "celery-worker": celery_peer.in_a_worker,
    "cloud-tasks": cloud_tasks_peer.single_and_many,
    "endpoint": endpoint.endpoint,
    "import": footprint.imports,
    "memory": footprint.memory,
}
REPORT = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PEERS = (
    "pydantic",
    "pydantic-core",
    "django",
    "django-tasks",
    "huey",
    "celery",
    "kombu",
    "amqp",
    "redis",
    "google-cloud-tasks",
    "grpcio",
    "uvicorn",
    "gunicorn",
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
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PEERS)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {cpu}, {os.cpu_count()} cores, "
        f"{int(memory) / 2**20:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}."
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def row(figure: Figure) -> str:
    """One line of the table."""
    limit, measured = (f"{value:.2f}{figure.unit}" for value in (figure.limit, figure.measured))
    cells = (figure.case, limit, measured, "yes" if figure.met else "**no**", figure.detail)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}: known are {', '.join(CASES)}")
    logging.disable(logging.CRITICAL)
    lines = [machine(), "", "| case | at most | measured | met | |", "|---|--:|--:|---|---|"]
    print("\n".join(lines), flush=True)
    for name in options.cases or CASES:
        for figure in CASES[name]():
            lines.append(row(figure))
            print(lines[-1], flush=True)
    if options.write:
        _write("\n".join(lines))


def _write(text: str) -> None:
    report = REPORT.read_text()
    head, _, rest = report.partition(BEGIN)
    _, _, tail = rest.partition(END)
    REPORT.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


if __name__ == "__main__":
    sys.exit(main())
