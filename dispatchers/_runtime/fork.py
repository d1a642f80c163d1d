"""Objects whose locks and threads must begin afresh in a forked child.

Nothing is done before a fork, so that nothing can hold one up: a module that forks while it is
imported would wait for itself. The child repairs what other threads of its parent had in hand.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Forked", "notice_fork", "renew_after_fork"]


class Forked(Protocol):
    """An object that outlives a fork but whose locks and threads do not."""

    def _after_fork(self) -> None:
        """Replace locks and forget threads; runs in the child, on its only thread."""


# Weak, so that registering an object does not keep it, and its threads, alive.
_live: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_after_fork(forked: Forked) -> None:
    """Call `_after_fork` of an object in every child that is forked while the object lives."""
    _live.add(forked)


def renew_all() -> None:
    """Do what a forked child needs; for forks that Python's hooks do not see, too."""
    # First, so that an error below does not repeat all of this on every dispatch.
    process.pid = os.getpid()
    for repair in (_free_imports, _free_models):
        with contextlib.suppress(Exception):  # private parts of Python and pydantic
            repair()
    # A copy: `_after_fork` may create further objects, which register themselves.
    for forked in tuple(_live):
        forked._after_fork()


def notice_fork() -> None:
    """Renew everything if this process was forked by a program that is not Python, as uWSGI is."""
    if process.pid != os.getpid():
        renew_all()


class _State:
    """The process for which everything was renewed last."""

    pid = os.getpid()


process = _State()


def _free_imports() -> None:
    """Let go of modules that a thread of the parent was importing.

    Their locks are held by a thread that is not in this process, and they could never be
    imported. Half a module is forgotten: the next import begins it again.
    """
    # A copy: the loop removes locks from the table.
    for name, reference in tuple(_module_locks().items()):
        lock = reference()
        owner = _owner(lock)
        if owner is not None and owner != threading.get_ident():
            _module_locks().pop(name, None)
            spec = getattr(sys.modules.get(name), "__spec__", None)
            # Modules that were fully imported stay: only their lock was taken.
            if getattr(spec, "_initializing", False):
                sys.modules.pop(name, None)


def _owner(lock: Any) -> int | None:
    """Return the thread that holds a module's lock (`_ModuleLock.owner`, Python 3.11 to 3.14)."""
    found = getattr(lock, "owner", None)
    return found if isinstance(found, int) else None


def _module_locks() -> dict[str, Callable[[], object]]:
    return getattr(sys.modules["_frozen_importlib"], "_module_locks", {})


def _free_models() -> None:
    """Replace the lock under which pydantic builds models when they are first used.

    It is one for all models of a process (pydantic 2.13); a version without it needs no such care.
    """
    main: Any = sys.modules.get("pydantic.main")  # not imported for this: a facade needs none
    lock = getattr(main, "_rebuild_lock", None)
    if lock is not None:
        main._rebuild_lock = type(lock)()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=renew_all)
