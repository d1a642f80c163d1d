"""AMQP frames over a socket, each step within a time limit; pika knows what is in them."""

from __future__ import annotations

import contextlib
import socket
import ssl
from time import monotonic
from typing import Any

from pika import frame, spec

from dispatchers._runtime.connect import connect

from ._errors import BlockedError, ReplyError
from ._server import Server

__all__ = ["Frames"]

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
"""AMQP 0-9-1 announces itself so: specification, section 4.2.2."""
MIN_TIMEOUT = 0.001
"""Seconds; a socket without a timeout would wait for ever."""
READ_SIZE = 65536
"""Bytes that are read at once."""
PUBLISH = (spec.Basic.Publish.INDEX >> 16, spec.Basic.Publish.INDEX & 0xFFFF)
"""The class and method that a refused message is reported with."""


class Frames:
    """The frames of one connection.

    Args:
        server: The server to connect to.

        until: When connecting has to be done, on the monotonic clock.

    Raises:
        OSError: No connection.
    """

    def __init__(self, server: Server, until: float) -> None:
        self.max_size = spec.FRAME_MIN_SIZE
        self.blocked: str | None = None
        """RabbitMQ's reason for taking no messages at the moment."""
        self.written = 0
        self._buffer = b""
        self.sock: socket.socket = connect(server.host, server.port, timeout=_left(until))
        try:
            # Without delay: a publish waits for its confirm, so nothing would fill the packet.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # There are no heartbeats: this lets the system notice a host that is gone.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if server.tls is not None:
                self.sock.settimeout(_left(until))
                name = server.tls_name or server.host
                self.sock = server.tls.wrap_socket(self.sock, server_hostname=name)
            self.write(PROTOCOL_HEADER, until)
        except BaseException:
            # Whatever ends it half-way: nothing else knows of the socket yet.
            self.close()
            raise

    def write(self, data: bytes, until: float) -> None:
        """Write all of `data`.

        Raises:
            OSError: It could not be written, or not in time; `written` has the bytes that were.
        """
        # Counted anew for each write: the caller asks whether any byte of it has left.
        self.written = 0
        rest = memoryview(data)
        while rest:
            self.sock.settimeout(_left(until))
            count = self.sock.send(rest)
            self.written += count
            rest = rest[count:]

    def read(self, until: float) -> Any:
        """Return the next frame.

        Raises:
            OSError: There is none in time, or the connection is gone.
            ReplyError: RabbitMQ closes the channel or the connection.
        """
        while (found := self._next()) is None:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError("the broker has not answered in time")
            self.sock.settimeout(left)
            self._receive()
        return found

    def _receive(self) -> None:
        # As much as there is: one packet may hold many frames.
        data = self.sock.recv(READ_SIZE)
        if not data:
            raise ConnectionResetError("the broker has closed the connection")
        self._buffer += data

    def _next(self) -> Any:
        if not self._buffer:
            return None
        size, found = frame.decode_frame(self._buffer)
        if found is None:
            return None
        self._buffer = self._buffer[size:]
        method = getattr(found, "method", None)
        if isinstance(method, spec.Connection.Close | spec.Channel.Close):
            raise _reply(method)
        if isinstance(method, spec.Connection.Blocked):
            self.blocked = str(method.reason)
        elif isinstance(method, spec.Connection.Unblocked):
            self.blocked = None
        return found

    def is_alive(self) -> bool:
        """Read what the broker has sent meanwhile; false once it has closed."""
        try:
            self.sock.settimeout(0)
            # To the end of what is there: a close may stand behind other frames.
            while True:
                while self._next() is not None:
                    pass
                self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except (OSError, ReplyError):
            return False

    def call(self, channel: int, method: Any, answer: type, until: float) -> Any:
        """Write a method and return its answer; frames in between are dropped.

        Raises:
            OSError: It could not be written, or was not answered in time.
            ReplyError: RabbitMQ refuses.
            BlockedError: RabbitMQ reads nothing for now from those who publish.
        """
        self._refuse_blocked()
        self.write(frame.Method(channel, method).marshal(), until)
        return self.await_method(answer, until)

    def await_method(self, wanted: type, until: float) -> Any:
        """Return the next method of a kind; raises as `read` does."""
        while True:
            method = getattr(self.read(until), "method", None)
            if isinstance(method, wanted):
                return method
            self._refuse_blocked()

    def _refuse_blocked(self) -> None:
        if self.blocked is not None:
            # A blocked broker does not read: writing on would fill the buffers, and then wait.
            raise BlockedError(f"the broker takes no messages for now ({self.blocked})")

    def close(self) -> None:
        """Close the socket at once; a broker that does not listen is not waited for."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.sock.close()


def _left(until: float) -> float:
    return max(until - monotonic(), MIN_TIMEOUT)


def _reply(method: Any) -> ReplyError:
    return ReplyError(
        int(method.reply_code),
        str(method.reply_text),
        channel=isinstance(method, spec.Channel.Close),
        publishing=(method.class_id, method.method_id) == PUBLISH,
    )
