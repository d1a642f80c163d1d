"""What holds locks or threads and must begin afresh in a forked child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forked", "renew_after_fork"]


class Forked(Protocol):
    """An object that outlives a fork but whose locks and threads do not."""

    def _after_fork(self) -> None:
        """Replace locks and forget threads; runs in the child, on its only thread."""


_live: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_after_fork(forked: Forked) -> None:
    """Call `_after_fork` of an object in every child that is forked while the object lives."""
    _live.add(forked)


def _renew_all() -> None:
    for forked in tuple(_live):
        forked._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_renew_all)
