"""The configured queue service of one process: its connection, made when it is first needed."""

from __future__ import annotations

from dispatchers.net import PerProcess

from ._connection import Connection, OwnClient, connect, gate
from ._options import CloudTasksOptions


class Broker:
    """Keeps one connection per process: a channel does not survive a fork.

    Args:
        options: The adapter's options.
    """

    def __init__(self, options: CloudTasksOptions) -> None:
        self._options = options
        # Within the gate: asking a channel for its state takes a lock of gRPC's.
        self._open = PerProcess[Connection | OwnClient](gate, lambda found: found.is_alive())

    def connection(self, timeout: float) -> Connection | OwnClient:
        """Return the connection of this process, begun anew where there is none that works.

        Raises:
            RejectedError: The client could not be made within `timeout` seconds.
        """
        return self._open.get(lambda: connect(self._options, timeout))

    def close(self) -> None:
        """Give the connection up; calls that are under way end first."""
        if (found := self._open.take()) is not None:
            found.retire()
