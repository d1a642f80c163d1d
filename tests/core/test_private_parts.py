"""Private parts of Python and pydantic that the core uses are there: `docs/private-parts.md`."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import pytest

from dispatchers.testing import Canary

PARTS = (
    Canary("pydantic.main:_rebuild_lock.acquire"),
    Canary("pydantic.main:BaseModel.__pydantic_fields_set__"),
    Canary("pydantic.main:BaseModel.__pydantic_extra__"),
    Canary("pydantic.main:BaseModel.__pydantic_private__"),
    Canary("_frozen_importlib:_module_locks"),
)


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_the_part_is_there(part: Canary) -> None:
    """A release that moves it fails here first."""
    assert part.problem() is None


def test_a_module_that_is_being_imported_is_marked() -> None:
    """The mark by which a forked child knows what was half imported."""
    source = Path(str(importlib.__file__)).with_name("_bootstrap.py").read_text()  # it is frozen

    assert "spec._initializing = True" in source


@pytest.mark.skipif(sys.platform == "win32", reason="another loop")
def test_a_loop_makes_its_executor_when_it_needs_one() -> None:
    """The attribute that is taken back in exit functions."""
    loop = asyncio.new_event_loop()

    before = vars(loop)["_default_executor"]
    loop.close()

    assert before is None
