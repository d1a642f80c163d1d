"""What is configured in this process, and how it changes.

`state` holds the current snapshot: one reading of the configuration and what was built from it.
Whatever changes the configuration puts another snapshot in its place and raises
`state.generation`, which is all that a task reads before it uses what it resolved last time.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from . import _registry
from ._contract import BaseDispatcher
from ._fork import renew_after_fork
from ._layers import Layer
from ._snapshot import CLOSE_WAIT, Overriding, Snapshot, close, on_build

__all__ = ["State", "View", "reload", "state"]


class View(NamedTuple):
    """What is in force: overrides, explicit settings, and a snapshot for each way back."""

    stack: tuple[Overriding, ...]
    explicit: Layer
    snapshots: dict[tuple[Overriding, ...], Snapshot]

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of the overrides in force."""
        return self.snapshots[self.stack]

    def changed(self, stack: tuple[Overriding, ...], explicit: Layer, *, anew: bool) -> View:
        """The view after a change; with `anew` all sources are read again."""
        kept = {} if anew else {k: s for k, s in self.snapshots.items() if set(k) <= set(stack)}
        for key in ((), stack):
            if key not in kept:
                kept[key] = Snapshot(key, explicit)
                for before in (self.snapshot, *self.snapshots.values()):
                    kept[key].adopt(before)
        return View(stack, explicit, kept)

    def emptied(self) -> View:
        """The same, with nothing built yet."""
        fresh = {stack: snapshot.fresh() for stack, snapshot in self.snapshots.items()}
        return self._replace(snapshots=fresh)

    def built(self) -> dict[int, BaseDispatcher]:
        """Every dispatcher that was built from settings, by its `id`."""
        snapshots = self.snapshots.values()
        return {id(d): d for each in snapshots for _, d in list(each.built.values())}


class State:
    """What is current in this process.

    Reading the configuration runs code of others (imports, a framework's settings), so no lock
    is held meanwhile: a change is computed from a view, and computed again if another was faster.
    """

    def __init__(self) -> None:
        self.generation = 0
        """Rises whenever what was resolved before may no longer hold."""
        self.view = View((), Layer({}), {(): Snapshot((), Layer({}))})
        self.snapshot = self.view.snapshot
        self.inherited: list[View] = []
        self._lock = threading.RLock()
        renew_after_fork(self)

    def change(
        self,
        compute: Callable[[View], View],
        validate: Callable[[Snapshot], None] = lambda _: None,
        timeout: float = CLOSE_WAIT,
    ) -> int:
        """Put another view in place, and close what only the one before had built.

        Returns:
            How many pieces of accepted work those left undone.
        """
        while True:
            before = self.view
            after = compute(before)
            validate(after.snapshot)
            if self._swapped(before, after):
                break
        for key, snapshot in before.snapshots.items():
            snapshot.retired = snapshot is not after.snapshots.get(key)
        held = after.built()
        gone = [each for key, each in before.built().items() if key not in held]
        return close(gone, timeout)

    def _swapped(self, before: View, after: View) -> bool:
        with self._lock:
            if self.view is not before:
                return False
            self.view = after
            self.snapshot = after.snapshot
            self.generation += 1
            return True

    def _after_fork(self) -> None:
        """Begin with dispatchers of our own; the parent's are kept, unused and not closed."""
        self.inherited.append(self.view)
        self._lock = threading.RLock()
        self.view = self.view.emptied()
        self.snapshot = self.view.snapshot
        self.generation += 1
        atexit.unregister(_close_at_exit)
        atexit.register(_close_at_exit)


state = State()


def reload() -> None:
    """Read environment, framework and file again.

    Dispatchers whose settings are the same stay, the others are closed.
    """
    state.change(lambda view: view.changed(view.stack, view.explicit, anew=True))


def _close_at_exit() -> None:
    """Let dispatchers finish what they hold; they stay, closed, for those who still dispatch."""
    close(state.view.built().values(), state.snapshot.exit_timeout)


_draining_in: set[int] = set()


def _drain_with_multiprocessing() -> None:
    """Children of `multiprocessing` that were forked end without exit functions (to 3.13)."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and os.getpid() not in _draining_in:
        _draining_in.add(os.getpid())
        util.Finalize(None, _close_at_exit, exitpriority=0)


# At import, so that it runs after the exit functions of applications, which may still dispatch.
atexit.register(_close_at_exit)
on_build.append(_drain_with_multiprocessing)
_registry.table.on_change.append(reload)
