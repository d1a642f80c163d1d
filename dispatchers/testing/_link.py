"""One connection through the fault proxy: two sockets, a pipe each way, and the rule it obeys."""

from __future__ import annotations

import errno
import selectors
import socket
import struct
from functools import partial
from typing import Literal

from ._pipe import Counts, Pipe, Rule

__all__ = ["Link", "reset"]

CHUNK = 65536
FULL = 262144
"""Bytes on their way in one direction beyond which the proxy stops reading."""
UNDER_WAY = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK})


class Link:
    """A client's connection and the one to the upstream server, which may not be there."""

    def __init__(
        self,
        client: socket.socket,
        upstream: tuple[socket.AddressFamily, tuple[str, int]] | None,
        selector: selectors.BaseSelector,
        counts: Counts,
    ) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.closed = False
        self._address = upstream
        self._selector = selector
        self._counts = counts
        self._connecting = self._lost = self._stalled = False
        self._rule = Rule("new")
        self._request, self._reply = Pipe("request"), Pipe("reply")
        _prepare(client)

    def obey(self, rule: Rule, now: float) -> None:
        """Follow a rule from now on; a connection that lost bytes cannot be healed."""
        if self.closed:
            return
        self._rule = rule
        self._stalled = rule.connection == "hold"
        for pipe in (self._request, self._reply):
            pipe.obey(rule)
        if rule.connection in ("reset", "close"):
            self.end("reset" if rule.connection == "reset" else "close")
        elif rule.connection == "forward" and self._address is not None:
            self._resume(*self._address)
        self.pump(now)

    def handle(self, sock: socket.socket, mask: int, now: float) -> None:
        """Act on what the selector saw."""
        if self.closed:
            return
        if self._connecting and sock is self.server:
            # The server refused: the client, which was accepted already, sees a reset.
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.end("reset")
                return
            self._connecting = False
        # Tried again: the selector may have woken because one of the two can be written.
        self._request.blocked = self._reply.blocked = False
        if mask & selectors.EVENT_READ:
            self._read(sock, now)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Move what may move, and say what to wait for."""
        for pipe in (self._request, self._reply):
            if not self.closed:
                self._flush(pipe, now)
        if self.closed:
            return
        if self._request.shut and self._reply.shut:
            self.end("close")
            return
        self._watch(self.client, self._request, self._reply)
        if self.server is not None:
            self._watch(self.server, self._reply, self._request)

    def due(self) -> float | None:
        """Return the latest time for the next call of `pump`."""
        if self._stalled or self._connecting or self.server is None:
            return None
        times = [due for pipe in (self._request, self._reply) if (due := pipe.due()) is not None]
        return min(times, default=None)

    def end(self, how: Literal["reset", "close"]) -> None:
        """Close both connections; the client may see a reset, the server sees an orderly end."""
        if self.closed:
            return
        self.closed = True
        # Before they are closed: the selector cannot find a closed socket's descriptor.
        for sock in (self.client, self.server):
            if sock is not None:
                self._unwatch(sock)
        (reset if how == "reset" else socket.socket.close)(self.client)
        if self.server is not None:
            self.server.close()

    def _resume(self, family: socket.AddressFamily, place: tuple[str, int]) -> None:
        """Connect to the server, unless that was done; a stream with a gap is beyond help."""
        # Bytes that were swallowed cannot be sent later: the stream has a gap.
        if self._lost:
            self.end("reset")
        elif self.server is None:
            self.server = socket.socket(family)
            _prepare(self.server)
            self._connecting = True
            # Does not wait: one thread serves all connections.
            if self.server.connect_ex(place) not in UNDER_WAY:
                self.end("reset")

    def _read(self, sock: socket.socket, now: float) -> None:
        pipe = self._request if sock is self.client else self._reply
        try:
            data = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.end("close" if sock is self.client else "reset")
            return
        if data:
            pipe.put(data, now)
        else:
            pipe.eof = True

    def _flush(self, pipe: Pipe, now: float) -> None:
        if self._rule.connection == "swallow" or self._address is None:
            self._swallow(pipe)
            return
        sink = self.server if pipe is self._request else self.client
        if sink is None or self._connecting or self._stalled:
            return
        while (due := pipe.due()) is not None and due <= now and not self.closed:
            # The allowance is used up, and there is a next byte: in its place the connection
            # breaks.
            if not (data := pipe.head()):
                self._trip()
                return
            self._write(pipe, sink, data, now)
        if pipe.eof and not pipe.chunks and not pipe.shut and not self.closed:
            self._shut(pipe, sink)

    def _write(self, pipe: Pipe, sink: socket.socket, data: bytes, now: float) -> None:
        self._counts.add(pipe.direction, len(data))  # before the peer can have received it
        count = 0
        try:
            count = sink.send(data)
        except BlockingIOError:
            pipe.blocked = True
        except OSError:
            self.end("close" if sink is self.client else "reset")
        else:
            pipe.written(count, now)
        # Corrected for what the kernel did not take.
        self._counts.add(pipe.direction, count - len(data))

    def _swallow(self, pipe: Pipe) -> None:
        self._lost = self._lost or pipe.size > 0
        pipe.clear()
        if pipe is self._request and pipe.eof:
            self.end("close")

    def _trip(self) -> None:
        if self._rule.then == "stall":
            self._stalled = True
        else:
            self.end(self._rule.then)

    def _shut(self, pipe: Pipe, sink: socket.socket) -> None:
        pipe.shut = True
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.end("close")

    def _watch(self, sock: socket.socket, source: Pipe, sink: Pipe) -> None:
        """Register what the socket is waited for; `source` begins at it, `sink` ends there."""
        mask = 0
        if self._connecting and sock is self.server:
            mask = selectors.EVENT_WRITE
        elif not self._stalled:
            # A full pipe is not read from: the sender is slowed down as by a real network.
            mask |= selectors.EVENT_READ if not source.eof and source.size < FULL else 0
            mask |= selectors.EVENT_WRITE if sink.blocked else 0
        if not mask:
            self._unwatch(sock)
        elif sock not in self._selector.get_map():
            self._selector.register(sock, mask, partial(self.handle, sock))
        else:
            self._selector.modify(sock, mask, self._selector.get_key(sock).data)

    def _unwatch(self, sock: socket.socket) -> None:
        if sock in self._selector.get_map():
            self._selector.unregister(sock)


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset(sock: socket.socket) -> None:
    """Close a connection so that its peer sees a reset."""
    # With a linger time of 0, closing sends RST in place of FIN.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
