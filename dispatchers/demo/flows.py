"""The demo's workflow: what an application writes."""

from __future__ import annotations

import asyncio
import os
import sysconfig
import time
from pathlib import Path

from dispatchers import task
from dispatchers.workflows import local, workflow

__all__ = ["packages", "survey"]


@task(name="demo.find_packages")
def find_packages(limit: int, effects: str) -> list[str]:
    """List packages of the standard library, in order."""
    note(effects, "find_packages")
    return packages()[:limit]


def count_lines(package: str, effects: str) -> int:
    """Count the lines of a package."""
    note(effects, f"count_lines {package}")
    time.sleep(0.1)  # so that there is time to kill its worker
    return sum(text.count("\n") for text in texts(package))


@task(name="demo.count_classes")
def count_classes(package: str, effects: str) -> int:
    """Count the classes of a package."""
    note(effects, f"count_classes {package}")
    return sum(text.count("\nclass ") for text in texts(package))


@workflow(name="demo.survey")
async def survey(limit: int, effects: str) -> dict[str, int]:
    """Find the largest packages, and count their classes."""
    lines: dict[str, int] = {}
    for package in await find_packages.step(limit, effects):
        lines[package] = await local(count_lines, package, effects)
    await asyncio.sleep(0.5)
    largest = sorted(lines, key=lambda package: -lines[package])[:4]
    steps = [count_classes.step(package, effects) for package in largest]
    return dict(zip(largest, await asyncio.gather(*steps), strict=True))


def note(effects: str, what: str) -> None:
    """Leave a trace in a file that no journal protects: a line for each time that this runs."""
    with Path(effects).open("a") as file:
        file.write(f"{os.getppid()} {os.getpid()} {what}\n")


def packages() -> list[str]:
    """List the packages of the standard library, in order."""
    return sorted(file.parent.name for file in root().glob("[a-z]*/__init__.py"))


def texts(package: str) -> list[str]:
    """Read the files of a package."""
    return [file.read_text("latin-1") for file in (root() / package).glob("*.py")]


def root() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))
