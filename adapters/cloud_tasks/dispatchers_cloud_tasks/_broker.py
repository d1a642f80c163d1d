"""The configured queue service of one process: its connection, made when it is first needed."""

from __future__ import annotations

import os
import threading

from ._connection import Connection, OwnClient, connect, gate
from ._options import CloudTasksOptions


class Broker:
    """Keeps one connection per process: a channel does not survive a fork.

    Args:
        options: The adapter's options.
    """

    def __init__(self, options: CloudTasksOptions) -> None:
        self._options = options
        self._lock = threading.RLock()
        self._open: tuple[int, Connection | OwnClient] | None = None
        self._inherited: object = None  # a parent's channel: letting go of it hangs the child

    def connection(self, timeout: float) -> Connection | OwnClient:
        """Return the connection of this process, begun anew where there is none that works.

        Raises:
            RejectedError: The client could not be made within `timeout` seconds.
        """
        with gate.entered():  # asking a channel for its state takes a lock of gRPC's
            found = self._usable()
        if found is not None:
            return found
        with gate.entered(), self._lock:  # in this order: no fork happens under the lock
            if (found := self._usable()) is not None:
                return found
            if self._open is not None and self._open[0] != os.getpid():
                self._inherited = self._open
            made = connect(self._options, timeout)
            self._open = os.getpid(), made
            return made

    def _usable(self) -> Connection | OwnClient | None:
        found = self._open
        if found is None or found[0] != os.getpid() or not found[1].is_alive():
            return None
        return found[1]

    def close(self) -> None:
        """Give the connection up; calls that are under way end first."""
        with self._lock:
            found, self._open = self._open, None
        if found is not None and found[0] == os.getpid():
            found[1].retire()
