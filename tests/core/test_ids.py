"""Ids of requests are unique over threads and processes, however these came about."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dispatchers.delivery import new_id

from .forking import ran

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
@pytest.mark.parametrize("fork", ["os.fork", "fork_in_c"])
def test_a_child_has_ids_of_its_own(fork: str):
    """C8: what a parent has fetched is not handed out by a child, too; Python saw one fork only."""
    script = f"""
        from dispatchers.delivery import new_id

        new_id()
        if child := {fork}():
            exit_code_of(child)
        print(*(new_id() for _ in range(100)), flush=True)
    """

    theirs, mine = ({*map(chance, line.split())} for line in ran(script).splitlines())

    assert len(theirs) == 100
    assert not mine & theirs
