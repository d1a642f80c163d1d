"""The documentation says what is: its blocks run, its tables are the code's, its links lead on."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from dispatchers import Task
from dispatchers._tasks.options import Policy

ROOT = Path(__file__).resolve().parents[2]

LEFT_OUT = {
    "README.md": [
        "sh: python -m pip install '.[cli]' && dispatchers demo",
        "sh: python -m pip install '.[tests]' && pytest -n 4 --dist loadscope",
        "sh: pip install dispatchers",
    ],
    "docs/backends.md": ["sh: dispatchers worker old --drain"],
    "docs/containers.md": [
        "dockerfile: FROM python:3.13-slim",
        "yaml: services:",
        "yaml: apiVersion: apps/v1",
    ],
    "docs/monitoring.md": [  # run with the real libraries by tests/adapters/rq/test_monitoring.py
        "py: # shop/sentry_hooks.py",
        "py: # shop/sentry_runs.py",
        "py: # shop/metrics.py",
        "py: # shop/tracing.py",
    ],
    "docs/testing-workflows.md": [
        "sh: dispatchers executions export shop.checkout/order-7 --out tests/histories"
    ],
    "docs/tutorial.md": ["sh: pip install 'dispatchers[cli,testing]'"],
}
"""The blocks that are not run, with their first lines."""


@pytest.mark.timeout(300)  # a page starts up to thirty processes
@pytest.mark.dispatchers_unchecked
def test_every_block_runs(name: str, page: Callable[[str], Any]) -> None:
    """Each block of a page runs, one after the other, and shows what the page says."""
    page(name).run()


def test_blocks_that_are_not_run_are_listed(name: str, page: Callable[[str], Any]) -> None:
    """What is not run is known, and little."""
    left_out = [each for each in page(name).left_out if not each.startswith("text: ")]

    assert left_out == LEFT_OUT.get(name, [])


def test_generated_parts_are_up_to_date(name: str, generate: ModuleType) -> None:
    """Every table that comes from the code is what the code says: python docs/_generate.py."""
    text = (ROOT / name).read_text()

    assert text == generate.regenerated(text)


def test_everything_generated_is_shown(generate: ModuleType) -> None:
    """Each table stands somewhere."""
    shown = {name for path in generate.pages() for name in generate.markers(path.read_text())}

    assert shown == set(generate.TABLES)


def test_the_picture_of_the_rooms_is_drawn_from_the_imports() -> None:
    """The architecture page shows the imports that there are: python docs/_rooms.py."""
    script = ROOT / "docs" / "_rooms.py"

    done = subprocess.run([sys.executable, script, "--check"], check=False)

    assert done.returncode == 0


GENERATED = re.compile(r"<!-- ([\w-]+): begin -->.*?<!-- \1: end -->", re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def test_links_lead_somewhere(name: str) -> None:
    """A link to another page, or a heading in it, finds it."""
    assert lost_links(ROOT / name) == []


def test_links_of_other_pages_lead_somewhere() -> None:
    """So do those of the READMEs beside the code, and of the pages at the top."""
    others = [*ROOT.glob("*/*/README.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("*.md")]

    assert {str(page): lost for page in others if (lost := lost_links(page))} == {}


def lost_links(page: Path) -> list[str]:
    links = LINK.findall(without_code(page.read_text()))
    return [link for link in links if "://" not in link and not leads(page, link)]


def leads(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    headings = HEADING.findall(without_code(target.read_text())) if anchor else []
    return not anchor or anchor in map(anchor_of, headings)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchor_of(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.lower().strip())
    return kept.replace(" ", "-")


def test_one_sentence_per_line(name: str) -> None:
    """A sentence ends where its line does, so that a change shows what changed."""
    text = without_code(GENERATED.sub("", (ROOT / name).read_text()))
    prose = [line for line in text.splitlines() if not line.startswith("|")]

    several = [line for line in prose if re.search(r"[a-z`)]\. [A-Z]", line)]

    assert several == []


def test_tests_that_a_page_names_are_there(name: str) -> None:
    """What was renamed in a suite, or in the tests, is renamed on the pages, too."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / name).read_text()))

    assert named <= _tests()


@functools.cache
def _tests() -> set[str]:
    files = [file for folder in ("dispatchers", "tests") for file in (ROOT / folder).rglob("*.py")]
    found = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    return found | {file.stem for file in files}


def test_the_readme_and_ci_run_the_same_test_command() -> None:
    """What the README promises is what is checked."""
    if not (ROOT / ".ci").exists():
        pytest.skip(".ci is no part of the source distribution")
    command = "python -m pip install '.[tests]' && pytest -n 4 --dist loadscope"

    checked = (ROOT / ".ci" / "run").read_text().replace("--quiet ", "")

    assert f"\n{command}\n" in (ROOT / "README.md").read_text()
    assert f"\n{command} ||" in checked


def test_every_keyword_of_a_task_is_described() -> None:
    """The tables in docs/tasks.md have what `@task` and `options` take, and nothing else."""
    text = (ROOT / "docs" / "tasks.md").read_text()
    of_task, of_options = (
        keywords(text, heading) for heading in ("Task options", "Options of a dispatch")
    )

    assert of_task == {"name", *Policy.model_fields}
    unpacked = get_type_hints(Task.options)["options"]
    assert of_options == set(get_type_hints(get_args(unpacked)[0]))


def keywords(text: str, heading: str) -> set[str]:
    """The names in the first column of the first table under a heading."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}
