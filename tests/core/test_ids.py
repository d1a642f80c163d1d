"""Ids of requests are unique over threads and processes, however these came about."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dispatchers.delivery import new_id

MANY = 600
"""More than are fetched from the system at a time."""


def chance(made: str) -> str:
    """What does not come from the clock."""
    return made[12:]


def test_ids_are_unique_over_threads():
    """C10: no two threads are given the same chance."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [chance(new_id()) for _ in range(MANY)], range(8)))

    assert len({each for some in made for each in some}) == 8 * MANY


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("way", ["python", "native"])
def test_a_child_has_ids_of_its_own(way: str):
    """C8: what a parent has fetched is not handed out by a child, too; Python saw one fork only."""
    fork: Callable[[], int] = os.fork if way == "python" else ctypes.PyDLL(None).fork
    new_id()
    read, write = os.pipe()

    if not (child := fork()):
        os.write(write, " ".join(chance(new_id()) for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = set(os.read(read, 65536).decode().split())
    os.close(read)
    os.close(write)
    mine = {chance(new_id()) for _ in range(100)}

    assert len(theirs) == 100
    assert not mine & theirs
