"""What holds locks or threads and must begin afresh in a forked child."""

from __future__ import annotations

import _imp
import contextlib
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pydantic.main

__all__ = ["Forked", "before_fork", "renew_after_fork"]


class Forked(Protocol):
    """An object that outlives a fork but whose locks and threads do not."""

    def _after_fork(self) -> None:
        """Replace locks and forget threads; runs in the child, on its only thread."""


_live: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_after_fork(forked: Forked) -> None:
    """Call `_after_fork` of an object in every child that is forked while the object lives."""
    _live.add(forked)


def before_fork(finish: Callable[[], object]) -> None:
    """Call `finish` before a fork of a process with several threads.

    It does once what each thread does at first, and waits for one that is in the midst of it: the
    child would inherit its lock, and not the thread that would let it go.
    """
    _finishing.append(finish)


_finishing: list[Callable[[], object]] = []


class _Held:
    """Two locks that nobody else has during a fork: a child could never have them.

    pydantic's, for models that are built when they are first used: one for all models of a process,
    the application's included (pydantic 2.13; a version without it needs no such care). And
    Python's, without which no import begins.
    """

    building: Any = getattr(pydantic.main, "_rebuild_lock", None)
    held = False

    def take(self) -> None:
        """Both, at a moment in which nobody imports anything; else neither."""
        for _ in range(MOST_LOOKS):  # the thread that was waited for may have begun the next
            if self.building and not self.building.acquire(timeout=MOST_SECONDS):
                return
            _imp.acquire_lock()
            self.held = True
            names = _being_imported()
            if not names:
                return
            self.let_go()
            _finish_imports(names)

    def let_go(self) -> None:
        """In parent and child."""
        if self.held:
            self.held = False
            _imp.release_lock()
            if self.building:
                self.building.release()


_held = _Held()
MOST_SECONDS = 5.0
"""A fork waits so long at most for a model of somebody's that is being built."""
MOST_LOOKS = 100
"""A thread that forks in the midst of an import finds its own module each time."""


def _finish_imports(names: list[str]) -> None:
    """Wait for other threads that import these; a dispatch imports late what a client needs."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _being_imported() -> list[str]:
    """Modules that run now, and those whose lock somebody has or is about to take."""
    running = [name for name, module in tuple(sys.modules.items()) if _is_being_imported(module)]
    return running + [name for name, lock in tuple(_locks().items()) if lock() is not None]


def _is_being_imported(module: object) -> bool:
    spec = getattr(module, "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _locks() -> Mapping[str, Callable[[], object]]:
    """Python's locks of the modules that are being imported, by weak references to them."""
    return getattr(sys.modules["_frozen_importlib"], "_module_locks", {})


def _prepare() -> None:
    if threading.active_count() == 1:  # nobody else can be in the midst of anything
        return
    for finish in _finishing:
        with contextlib.suppress(Exception):
            finish()
    _held.take()


def _renew_all() -> None:
    _held.let_go()
    for forked in tuple(_live):
        forked._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_prepare, after_in_parent=_held.let_go, after_in_child=_renew_all)
