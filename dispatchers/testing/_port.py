"""The port that the fault proxy listens on, or holds without listening, or lets overflow."""

from __future__ import annotations

import contextlib
import platform
import selectors
import socket
import struct
from collections.abc import Iterator

from ._link import reset

__all__ = ["Port"]

BACKLOG = 128
FILL_SECONDS = 0.1
"""A connection on the loopback that takes longer than this was not taken into the backlog."""
MAX_FILLERS = 64
TCP_INFO = struct.Struct("=24x2I")
"""`tcpi_unacked` and `tcpi_sacked`: of a listener, connections that wait and how many may."""


class Port:
    """One TCP port, ours from the beginning to `close` whatever state it is in.

    Args:
        host: The address to bind.

        port: 0 for one that is free.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.sock = self._bound()
        self.address = self.sock.getsockname()[:2]
        self._fillers: list[socket.socket] = []
        self._left_over: list[socket.socket] = []

    def listen(self) -> None:
        """Let connections in."""
        self._unfill()
        self.sock.listen(BACKLOG)

    def refuse(self) -> None:
        """Refuse connections, those in the backlog included."""
        self._unfill()
        with contextlib.suppress(OSError):  # it did not listen
            self.sock.shutdown(socket.SHUT_RDWR)  # for a forked child that holds it, too
        self.sock.close()
        while self._left_over:
            reset(self._left_over.pop())
        self.sock = self._bound()

    def ignore(self) -> None:
        """Answer no connection: fill the backlog with our own, and take nothing from it."""
        self._unfill()
        # The smallest backlog that there is: the kernel still takes one or two.
        self.sock.listen(0)
        for _ in range(MAX_FILLERS):
            filler = socket.socket(self.sock.family)
            filler.setblocking(False)
            filler.connect_ex(self.address)
            self._fillers.append(filler)
            if self._is_full(filler):
                return
        raise RuntimeError(f"the backlog of {self.address} took {MAX_FILLERS} connections")

    def accept(self) -> Iterator[socket.socket]:
        """The connections that wait."""
        while self._left_over:
            yield self._left_over.pop()
        with contextlib.suppress(OSError):  # none is left, or the client has gone again
            while True:
                yield self.sock.accept()[0]

    def close(self) -> None:
        """Give the port back."""
        self._unfill()
        self.sock.close()
        for sock in self._left_over:
            sock.close()

    def _bound(self) -> socket.socket:
        """A socket that holds the port; as long as it does not listen, connections are refused."""
        sock = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
        try:
            sock.setblocking(False)
            # The port has connections in TIME_WAIT from the mode before.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _is_full(self, filler: socket.socket) -> bool:
        """Return True if the kernel takes no further connection into the backlog."""
        if platform.system() != "Linux":
            return not _is_writable(filler, FILL_SECONDS)
        # Linux tells it; the time that a connection takes tells nothing on a busy machine.
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
        waiting, limit = TCP_INFO.unpack(info)
        return bool(waiting > limit)

    def _unfill(self) -> None:
        """Take our own connections out of the backlog, and keep who waited between them."""
        ours = {filler.getsockname() for filler in self._fillers}
        while self._fillers:
            reset(self._fillers.pop())
        with contextlib.suppress(OSError):
            while ours:
                sock, peer = self.sock.accept()
                if peer in ours:
                    sock.close()
                else:
                    self._left_over.append(sock)


def _is_writable(sock: socket.socket, timeout: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        return bool(selector.select(timeout))
