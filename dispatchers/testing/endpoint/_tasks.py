"""A task that says when it begins."""

from __future__ import annotations

from dispatchers import task
from dispatchers.testing.journal import Journal

__all__ = ["hold"]


@task(name="dispatchers.testing.hold")
def hold(journal: str) -> None:
    """Begin, and do not end before the journal is released."""
    Journal(journal).write("begun")
    Journal(journal).wait_for_release(30.0)
    Journal(journal).write("ended")
