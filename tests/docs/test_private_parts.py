"""The page of private parts, the canaries and the tests: each knows of the others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "private-parts.md").read_text()
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CODE = re.compile(r"`([^`]+)`")


def rows() -> Iterator[list[str]]:
    """The cells of each row of the page's tables."""
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] != "library":
            yield cells


def canaries(path: Path) -> Iterator[str]:
    """The names of the canaries that a module of tests writes down."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Canary":
            given = node.args[0]
            if isinstance(given, ast.Constant):
                yield str(given.value)


IN_TESTS = [
    (path.relative_to(ROOT).as_posix(), name)
    for path in TESTS
    if path.relative_to(ROOT).parts[1] in {"adapters", "contrib", "core"}
    for name in canaries(path)
    if path.name == "test_private_parts.py"
]


def test_every_canary_is_on_the_page() -> None:
    """Whoever reads the page sees each part of a client that a test watches."""
    words = {word for cells in rows() for word in re.findall(r"\w+", " ".join(cells))}

    assert IN_TESTS
    assert [
        each for each in IN_TESTS if each[1].rpartition(":")[2].split(".")[-1] not in words
    ] == []


def test_every_row_names_a_test_that_exists() -> None:
    """A row whose test is gone would watch nothing."""
    functions = {name for path in TESTS for name in re.findall(r"def (test_\w+)", path.read_text())}
    modules = {path.stem for path in TESTS} | {"_worker"}  # a worker's own list, of an adapter
    missing = [
        named
        for cells in rows()
        for named in CODE.findall(cells[-1])
        if not (ROOT / named).exists()
        and named not in functions
        and named.partition(".")[0] not in modules
    ]

    assert missing == []


def test_every_row_is_whole() -> None:
    """Five cells: the library, the part, its use, what happens without it, and the test."""
    assert [cells for cells in rows() if len(cells) != 5] == []


@pytest.mark.parametrize("adapter", ["celery", "rq"])
def test_parts_that_a_worker_refuses_without_are_on_the_page(adapter: str) -> None:
    """What a worker looks at when it starts is named by its list."""
    source = (ROOT / "adapters" / adapter / f"dispatchers_{adapter}" / "_worker.py").read_text()

    lists = re.findall(r"^(\w*_PARTS)\b", source, re.MULTILINE)

    assert lists
    assert [each for each in lists if f"`_worker.{each}`" not in PAGE] == []
