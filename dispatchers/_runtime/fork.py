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
from mmap import PAGESIZE, mmap
from typing import Any, Protocol

__all__ = [
    "Forked",
    "Generation",
    "generation",
    "new_generation",
    "notice_fork",
    "renew_after_fork",
]


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
    _depth.forks += 1
    generation[0] = _depth.forks % 255 + 1
    for repair in (_free_imports, _free_models):
        with contextlib.suppress(Exception):  # private parts of Python and pydantic
            repair()
    # A copy: `_after_fork` may create further objects, which register themselves.
    for forked in tuple(_live):
        forked._after_fork()


def notice_fork() -> None:
    """Renew everything if this process was forked by a program that is not Python, as uWSGI is."""
    if not generation[0]:
        renew_all()


class Generation(Protocol):
    """A byte, by index 0, that is zero in a forked child until it is set there."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class _AskedGeneration:
    """A generation that asks the system for the process each time."""

    def __getitem__(self, index: int, /) -> int:
        return self._value if self._pid == os.getpid() else 0

    def __setitem__(self, index: int, value: int, /) -> None:
        self._pid, self._value = os.getpid(), value


WIPE_ON_FORK = 18
"""`MADV_WIPEONFORK` of Linux 4.14 and later, which Python's `mmap` has no name for."""

NO_ADVICE = -1
"""What no kernel takes; emulators that accept any advice do, and wipe nothing."""


def new_generation() -> Generation:
    """Return a generation, set to 1.

    Where the kernel wipes it in a child by itself, for each way to fork, it takes no system call:
    20 ns instead of the 180 of `getpid`.
    """
    made = _wiped_on_fork() or _AskedGeneration()
    made[0] = 1
    return made


def _wiped_on_fork() -> Generation | None:
    if sys.platform != "linux":
        return None
    from mmap import MAP_ANONYMOUS, MAP_PRIVATE  # not on every system

    try:
        page = mmap(-1, PAGESIZE, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    except OSError:
        return None
    return page if _takes(page, WIPE_ON_FORK) and not _takes(page, NO_ADVICE) else None


def _takes(page: mmap, advice: int) -> bool:
    try:
        page.madvise(advice)
    except OSError:
        return False
    return True


class _Depth:
    """Forks between the first process and this one."""

    forks = 0


_depth = _Depth()

generation = new_generation()
"""The generation of this process: another in a child than in its parent, zero until renewed."""


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
