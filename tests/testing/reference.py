"""Two sound adapters to break: a queue in memory, and a queue behind a socket.

Both keep the contract (the suite says so), and both have a seam where the client is called, so
that what an adapter does around its client is judged as well.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from pydantic import Field, SecretStr

from dispatchers import (
    BackendOptions,
    BaseDispatcher,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    Sent,
    Stats,
)
from dispatchers._dispatch.protocol import Item
from dispatchers._models.envelope import decode
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.backends.memory import MemoryDispatcher, MemoryOptions
from dispatchers.testing import Harness

__all__ = [
    "InlineHarness",
    "SharingDispatcher",
    "SharingHarness",
    "ShelfDispatcher",
    "ShelfHarness",
    "SocketDispatcher",
    "SocketHarness",
]


class ShelfOptions(MemoryOptions):
    """Options of `shelf`: a place that needs a password."""

    url: str = "shelf://reader:open-sesame@nowhere/1"
    token: SecretStr = SecretStr("token-of-the-shelf")


class ShelfDispatcher(MemoryDispatcher):
    """A queue in memory whose client is one method: `put`."""

    name = "shelf"
    capabilities = MemoryDispatcher.capabilities.model_copy(
        update={"max_size": 200_000, "max_delay": timedelta(minutes=15)}
    )
    Options = ShelfOptions

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        """The client: takes an envelope, or raises."""
        return super()._send(request, body, timeout=timeout)

    def wait_in_vain(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        """The client of a backend that does not answer: keeps to the time it is given."""
        del request, body
        time.sleep(timeout)
        raise TimeoutError("no answer")

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self.put(request, body, timeout)

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return await BaseDispatcher._asend(self, request, body, timeout=timeout)

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        return await BaseDispatcher._asend_many(self, items, timeout=timeout)


class ShelfHarness(Harness):
    """Looks into a shelf, steps its worker, and breaks its client."""

    without = {
        "network": "a shelf is in this process",
        "processes": "each process has a shelf of its own",
    }
    secrets = ("open-sesame", "token-of-the-shelf")

    def __init__(self, kind: type[ShelfDispatcher] = ShelfDispatcher) -> None:
        self.kind = kind

    def make_dispatcher(self, **options: Any) -> ShelfDispatcher:
        return self.kind(**options)

    def received(self, dispatcher: Any) -> list[bytes]:
        return [work.body for work in dispatcher._queue]

    def run_next(self, dispatcher: Any) -> object:
        return dispatcher.step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dispatcher.dead]

    def crash(self, dispatcher: Any) -> None:
        if (delivery := dispatcher.claim()) is not None:
            dispatcher.abandon(delivery)

    @contextmanager
    def stalled(self, dispatcher: Any) -> Iterator[None]:
        with _put(dispatcher, dispatcher.wait_in_vain):
            yield

    @contextmanager
    def broken(self, dispatcher: Any, exc: BaseException) -> Iterator[None]:
        def put(*_: object) -> Sent:
            raise exc

        with _put(dispatcher, put):
            yield


@contextmanager
def _put(dispatcher: Any, put: Any) -> Iterator[None]:
    vars(dispatcher)["put"] = put
    try:
        yield
    finally:
        del vars(dispatcher)["put"]


class InlineHarness(Harness):
    """Work that runs in the call."""

    without = {
        "received": "nothing waits",
        "stepping": "nothing waits",
        "dead": "the answer says it",
        "crash": "the worker is the caller",
        "network": "there is none",
        "stall": "there is nobody to wait for",
        "processes": "work runs where it is dispatched",
    }
    retrying = {"retries": "immediate"}

    def __init__(self, kind: type[InlineDispatcher] = InlineDispatcher) -> None:
        self.kind = kind

    def make_dispatcher(self, **options: Any) -> InlineDispatcher:
        return self.kind(**options)

    def run_next(self, dispatcher: Any) -> None:
        del dispatcher


# A queue behind a socket: 4 bytes of length, an envelope; the answer is `+` or `=` and an
# id, or `!` and a category.


class Broker(socketserver.ThreadingTCPServer):
    """The server: keeps what it is given in a queue in memory."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.queue = MemoryDispatcher()
        self.refusal: ErrorCategory | None = None
        self.sessions: set[socket.socket] = set()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def take(self, body: bytes) -> bytes:
        """Keep an envelope; what to answer. An empty one asks for the figures."""
        if not body:
            return json.dumps([stats[:6] for stats in self.queue.stats()]).encode()
        if self.refusal:
            return b"!" + self.refusal.value.encode()
        request = decode(body)
        try:
            sent = self.queue._send(request, body, timeout=1.0)
        except RejectedError as exc:
            return b"!" + exc.category.value.encode()
        return (b"+" if sent.status == "accepted" else b"=") + request.id.encode()

    def stop(self) -> None:
        """End the server and every session."""
        self.shutdown()
        self.thread.join()
        for session in tuple(self.sessions):
            with suppress(OSError):
                session.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Session(socketserver.BaseRequestHandler):
    server: Broker

    def setup(self) -> None:
        self.server.sessions.add(self.request)

    def handle(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                size = int.from_bytes(exactly(self.request, 4), "big")
                answer = self.server.take(exactly(self.request, size))
                self.request.sendall(len(answer).to_bytes(4, "big") + answer)

    def finish(self) -> None:
        self.server.sessions.discard(self.request)


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: The other side has closed.
    """
    data = b""
    while len(data) < size:
        if not (part := connection.recv(size - len(data))):
            raise EOFError("closed by the server")
        data += part
    return data


class SocketOptions(BackendOptions):
    """Options of `socket`."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)


class SentInPartError(Exception):
    """The connection failed after the first byte was sent."""


class SocketDispatcher(BaseDispatcher):
    """Hands envelopes to a `Broker`, each over a connection of its own."""

    name = "socket"
    contract = 1
    capabilities = MemoryDispatcher.capabilities.model_copy(update={"durable": True})
    Options = SocketOptions
    options: SocketOptions
    stops_at_failure = True

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        until = monotonic() + timeout
        with self.connected(until) as connection:
            try:
                answer = self.exchanged(connection, body, until)
            except (OSError, EOFError) as exc:
                raise SentInPartError(type(exc).__name__) from exc
        if answer[:1] == b"!":
            raise RejectedError(ErrorCategory(answer[1:].decode()), "the broker refused it")
        known = answer[:1] == b"="
        return Sent(request.id, DispatchStatus.DUPLICATE if known else DispatchStatus.ACCEPTED)

    def connected(self, until: float) -> socket.socket:
        """A connection, within the time that is left."""
        return socket.create_connection((self.options.host, self.options.port), left(until))

    def exchanged(self, connection: socket.socket, body: bytes, until: float) -> bytes:
        """The server's answer to an envelope, within the time that is left."""
        connection.settimeout(left(until))
        connection.sendall(len(body).to_bytes(4, "big") + body)
        return self.answered(connection, until)

    def answered(self, connection: socket.socket, until: float) -> bytes:
        """The server's answer, byte by byte, within the time that is left."""
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            connection.settimeout(left(until))
            if not (part := connection.recv(4096)):
                raise EOFError("closed by the server")
            data += part
        return data[4:]

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        until = monotonic() + timeout
        with self.connected(until) as connection:
            found = json.loads(self.exchanged(connection, b"", until))
        return [Stats(*each, at=datetime.now(UTC)) for each in found]

    def _category(self, exc: Exception) -> ErrorCategory | None:
        cause = exc.__cause__ if isinstance(exc, SentInPartError) else exc
        if isinstance(cause, TimeoutError):
            return ErrorCategory.TIMEOUT
        return ErrorCategory.UNAVAILABLE if isinstance(cause, OSError | EOFError) else None

    def _maybe_sent(self, exc: Exception) -> bool:
        return isinstance(exc, SentInPartError)

    def _probe(self, *, timeout: float) -> None:
        self.connected(monotonic() + timeout).close()


class SharingDispatcher(SocketDispatcher):
    """Hands over what callers dispatch at once in one call, and each in its turn."""

    shares_sending = True
    capabilities = SocketDispatcher.capabilities.model_copy(update={"batch": True})

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        return [self._one_of_many(request, body, until) for request, body in items]


def left(until: float) -> float:
    """Seconds left.

    Raises:
        TimeoutError: There are none.
    """
    if (seconds := until - monotonic()) <= 0:
        raise TimeoutError("no time is left")
    return seconds


class SocketHarness(Harness):
    """A broker on the loopback."""

    def __init__(self, kind: type[SocketDispatcher] = SocketDispatcher) -> None:
        self.kind = kind
        self.broker = Broker()

    @property
    def upstream(self) -> tuple[str, int]:
        return "127.0.0.1", self.broker.server_address[1]

    def connect(self, host: str, port: int, **options: Any) -> SocketDispatcher:
        return self.kind(host=host, port=port, **options)

    def make_dispatcher(self, **options: Any) -> SocketDispatcher:
        self.broker.queue._settings = MemoryDispatcher(
            **{
                k: v
                for k, v in options.items()
                if k in ("skew_grace", "max_deliveries", "idempotency")
            }
        )._settings
        return self.connect(*self.upstream, **options)

    def received(self, dispatcher: Any) -> list[bytes]:
        del dispatcher
        return [work.body for work in self.broker.queue._queue]

    def run_next(self, dispatcher: Any) -> object:
        del dispatcher
        return self.broker.queue.step()

    def dead(self, dispatcher: Any) -> list[bytes]:
        del dispatcher
        return [letter.body for letter in self.broker.queue.dead]

    def crash(self, dispatcher: Any) -> None:
        del dispatcher
        if (delivery := self.broker.queue.claim()) is not None:
            self.broker.queue.abandon(delivery)

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        for category in (ErrorCategory.PERMISSION, ErrorCategory.CAPACITY):
            self.broker.refusal = category
            yield self.dispatcher(), category
            self.broker.refusal = None

    def close(self) -> None:
        self.broker.stop()


class SharingHarness(SocketHarness):
    """The same, whose dispatcher shares calls."""

    def __init__(self, kind: type[SocketDispatcher] = SharingDispatcher) -> None:
        super().__init__(kind)
