"""AMQP frames over a socket, with a bound on everything; what is in them is pika's business."""

from __future__ import annotations

import contextlib
import socket
import ssl
from time import monotonic
from typing import Any

from pika import frame, spec

from dispatchers.net import connect

from ._errors import BrokerSaidError

__all__ = ["Frames"]

PROTOCOL = b"AMQP\x00\x00\x09\x01"
"""AMQP 0-9-1 announces itself so: specification, section 4.2.2."""
SHORTEST = 0.001
"""Seconds; a socket without a timeout would wait for ever."""
LOOK = 65536
"""Bytes that are read at once."""


class Frames:
    """One connection's frames.

    Args:
        parameters: pika's, of one server.

        until: When connecting has to be done, on the monotonic clock.

    Raises:
        OSError: No connection.
    """

    def __init__(self, parameters: Any, until: float) -> None:
        self.largest = spec.FRAME_MIN_SIZE
        self._buffer = b""
        left = max(until - monotonic(), SHORTEST)
        self.sock: socket.socket = connect(parameters.host, parameters.port, timeout=left)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if parameters.ssl_options is not None:
                self._encrypt(parameters, until)
            self.write(PROTOCOL, until)
        except BaseException:
            self.close()
            raise

    def _encrypt(self, parameters: Any, until: float) -> None:
        options = parameters.ssl_options
        self.sock.settimeout(max(until - monotonic(), SHORTEST))
        name = options.server_hostname or parameters.host
        self.sock = options.context.wrap_socket(self.sock, server_hostname=name)

    def write(self, data: bytes, until: float) -> None:
        """Write all of it.

        Raises:
            OSError: It could not be written, or not in time; `written` says how much was.
        """
        self.written = 0
        rest = memoryview(data)
        while rest:
            self.sock.settimeout(max(until - monotonic(), SHORTEST))
            count = self.sock.send(rest)
            self.written += count
            rest = rest[count:]

    def read(self, until: float) -> Any:
        """The next frame.

        Raises:
            OSError: There is none in time, or the connection is gone.
            BrokerSaidError: RabbitMQ closes the channel or the connection.
        """
        while (found := self._next()) is None:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError("the broker has not answered in time")
            self.sock.settimeout(left)
            data = self.sock.recv(LOOK)
            if not data:
                raise ConnectionResetError("the broker has closed the connection")
            self._buffer += data
        return found

    def _next(self) -> Any:
        if not self._buffer:
            return None
        size, found = frame.decode_frame(self._buffer)
        if found is None:
            return None
        self._buffer = self._buffer[size:]
        method = getattr(found, "method", None)
        if isinstance(method, spec.Connection.Close | spec.Channel.Close):
            channel = isinstance(method, spec.Channel.Close)
            raise BrokerSaidError(int(method.reply_code), str(method.reply_text), channel=channel)
        return found

    def is_quiet(self) -> bool:
        """Whether the broker has said nothing since, a farewell least of all."""
        if self._buffer:
            return False
        self.sock.settimeout(0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def call(self, channel: int, method: Any, answer: type, until: float) -> Any:
        """Write a method and wait for its answer; what else comes meanwhile is of no interest.

        Raises:
            OSError: It could not be written, or was not answered in time.
            BrokerSaidError: RabbitMQ refuses.
        """
        self.write(frame.Method(channel, method).marshal(), until)
        return self.await_method(answer, until)

    def await_method(self, wanted: type, until: float) -> Any:
        """The next method of a kind; raises as `read` does."""
        while True:
            method = getattr(self.read(until), "method", None)
            if isinstance(method, wanted):
                return method

    def close(self) -> None:
        """Close the socket at once, without a word to a broker that may not listen."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.sock.close()
