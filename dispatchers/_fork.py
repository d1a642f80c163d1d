"""What holds locks or threads and must begin afresh in a forked child."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
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


def _finish_imports() -> None:
    """Wait for other threads that import something: a child would wait for it for ever.

    It inherits the lock of a module, and not the thread that would let it go. What a dispatch
    imports late is ours, Python's, pydantic's or a client's.
    """
    for _ in range(MOST_LOOKS):  # the thread that was waited for may have begun the next
        names = _being_imported()
        if not names:
            return
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


MOST_LOOKS = 100
"""A thread that forks in the midst of an import finds its own module each time."""


def _being_imported() -> list[str]:
    return [name for name, module in tuple(sys.modules.items()) if _is_being_imported(module)]


def _is_being_imported(module: object) -> bool:
    spec = getattr(module, "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _renew_all() -> None:
    for forked in tuple(_live):
        forked._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_finish_imports, after_in_child=_renew_all)
