"""The heartbeat of a worker: a thread of its own, on a connection of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from time import monotonic

from dispatchers._runtime.log import say
from dispatchers.sqlite._errors import StoreError
from dispatchers.sqlite._store import SQLiteStore

__all__ = ["LeaseKeeper"]


# Beats per lease: three may fail before it runs out.
_BEATS = 4


class LeaseKeeper:
    """Keeps an owner's lease, and looks whether others have lost theirs.

    Args:
        store: Used by no other, so that nothing holds up a beat.

        on_loss: Called on the heart's thread when the lease is lost.
    """

    def __init__(self, store: SQLiteStore, on_loss: Callable[[], None]) -> None:
        self._store = store
        self._on_loss = on_loss
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.owner = ""
        self.lost = False

    def start(self, *, timeout: float) -> None:
        """Become an owner and keep the lease from now on.

        Raises:
            StoreError: The store does not answer.
        """
        self.owner = self._store.owners.register(timeout=timeout)
        self.lost = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="dispatchers-heart", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def leave(self, *, timeout: float) -> int:
        """Stop being an owner; how many jobs went back."""
        self.stop()
        return self._store.owners.leave(self.owner, timeout=timeout)

    def close(self) -> None:
        """Stop, and close the connection."""
        self.stop()
        self._store.close()

    def _run(self) -> None:
        pause = self._store.lease / _BEATS
        renewed = due = monotonic()
        while not self._stop.wait(max(0.0, due - monotonic())):
            begun = monotonic()
            alive = self._beat(pause)
            if alive:
                # From before the call: the observer may have seen the beat at any moment since.
                renewed = begun
            elif alive is False or begun - renewed >= self._store.lease:
                self.lost = True
                self._on_loss()
                return
            # Sooner after an error: the lease runs on.
            due = begun + (pause if alive else pause / _BEATS)

    def _beat(self, timeout: float) -> bool | None:
        """Tell whether the lease is ours; None if unknown."""
        try:
            alive = self._store.owners.beat(self.owner, timeout=timeout)
        except StoreError as exc:
            say(logging.WARNING, "the lease of this worker could not be renewed: %s", exc)
            return None
        with contextlib.suppress(StoreError):  # the next beat looks again
            # Every worker looks after the others, so that no separate process has to.
            self._store.owners.reap(timeout=timeout)
        return alive
