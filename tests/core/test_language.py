"""Docstrings and comments are plain technical English."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIDDLE = re.compile(r"^(What|Who|Whose|Whom|Where|When|How|Whether)\b")
BANNED = re.compile(r"\b(somebody|nobody|whoever|anybody|everybody)\b", re.IGNORECASE)
LONGEST = 12
"""Words of a first line; ten is the aim."""
PACKAGES = sorted(
    path for path in (ROOT / "dispatchers", *ROOT.glob("[ac]*/*/dispatchers_*")) if path.is_dir()
)
PARTS = sorted(
    {
        f"{package.name}/{path.relative_to(package).parts[0]}"
        for package in PACKAGES
        for path in package.rglob("*.py")
        if "migrations" not in path.parts
    }
)
"""Each room of the core, and each module of a package beside it."""


def files(part: str) -> Iterator[Path]:
    package, _, name = part.partition("/")
    path = next(each for each in PACKAGES if each.name == package) / name
    return iter([path] if path.suffix else sorted(path.rglob("*.py")))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def of(part: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong in a part: its place, and the words."""
    for path in files(part):
        where, source = path.relative_to(ROOT), path.read_text()
        said = list(docstrings(ast.parse(source)))
        for row, text in said:
            first = text.splitlines()[0]
            if RIDDLE.match(first):
                yield f"{where}:{row}", first
        for row, text in (*said, *comments(source)):
            yield from ((f"{where}:{row}", found[0]) for found in BANNED.finditer(text))


@pytest.mark.parametrize("part", PARTS)
def test_first_lines_say_the_thing(part):
    """A first line begins with a verb or a noun; texts name persons and things, not riddles."""
    assert list(of(part)) == []


def test_the_check_sees_what_it_should(tmp_path):
    """Each kind of finding is one."""
    assert RIDDLE.match("What a dispatch answers.")
    assert RIDDLE.match("Whether it is there.")
    assert not RIDDLE.match("Whatever was given, as text.")
    assert BANNED.search("as Somebody said")
    assert not BANNED.search("bodies")
