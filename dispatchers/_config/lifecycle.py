"""Current configuration of this process, and its changes.

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

from dispatchers._config import registry as _registry
from dispatchers._config.container import CLOSE_WAIT, Snapshot, close, on_build
from dispatchers._config.layers import Layer
from dispatchers._dispatch.base import BaseDispatcher
from dispatchers._runtime.fork import renew_after_fork

__all__ = ["State", "View", "reload", "state"]


class View(NamedTuple):
    """Overrides in force, explicit settings, and the snapshots to return to."""

    stack: tuple[Layer, ...]
    explicit: Layer
    snapshots: dict[tuple[Layer, ...], Snapshot]

    @property
    def snapshot(self) -> Snapshot:
        """Return the snapshot of the overrides in force."""
        return self.snapshots[self.stack]

    def changed(self, stack: tuple[Layer, ...], explicit: Layer, *, anew: bool) -> View:
        """Return the view after a change; `anew` reads all sources again."""
        kept = {} if anew else {k: s for k, s in self.snapshots.items() if set(k) <= set(stack)}
        for key in ((), stack):
            if key not in kept:
                kept[key] = Snapshot(key, explicit)
                # The one in force first: its connections are the ones in use.
                for before in (self.snapshot, *self.snapshots.values()):
                    kept[key].adopt(before)
        return View(stack, explicit, kept)

    def emptied(self) -> View:
        """Return the same view, with nothing built yet."""
        fresh = {stack: snapshot.fresh() for stack, snapshot in self.snapshots.items()}
        return self._replace(snapshots=fresh)

    def built(self) -> dict[int, BaseDispatcher]:
        """Return every dispatcher built from settings, by its `id`."""
        snapshots = self.snapshots.values()
        return {id(d): d for each in snapshots for _, d in list(each.built.values())}


class State:
    """Holder of the current view.

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
        """Swap the view, and close the dispatchers that only the old one has.

        Returns:
            How many pieces of accepted work those left undone.
        """
        # Compare and swap: a lock would be held while a framework's settings, or an import, run.
        while True:
            before = self.view
            after = compute(before)
            validate(after.snapshot)
            if self._swapped(before, after):
                break
        for key, snapshot in before.snapshots.items():
            # Marked before the others are closed: one that is being built then closes itself.
            snapshot.retired = snapshot is not after.snapshots.get(key)
        held = after.built()
        # By identity: a dispatcher that several snapshots share stays until the last one goes.
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
        """Start with new dispatchers; the parent's stay unused and open."""
        # Kept, because collecting the parent's dispatchers would close its connections.
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
    """Close every dispatcher; later dispatches are refused as closed."""
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
