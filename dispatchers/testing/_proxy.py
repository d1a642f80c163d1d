"""A TCP proxy on the loopback that fails on command, to see what a client makes of it."""

from __future__ import annotations

import selectors
import socket
import threading
from queue import SimpleQueue
from time import monotonic
from typing import Any, Literal, Self

from ._link import Link
from ._pipe import Counts, Direction, Rule
from ._port import Port

__all__ = ["FaultProxy"]

APPLY_SECONDS = 30.0
"""The proxy's thread answers within microseconds; a machine may be very busy."""
HEALTHY = Rule("pass")


class FaultProxy:
    """Forwards connections to a server, until it is told to do worse.

    Use it as a context manager, and point the client at `address`. Each mode applies from the
    moment its method returns, to connections that exist as well as to new ones, and replaces the
    mode before it. All methods may be called from any thread.

    ::

        with FaultProxy("127.0.0.1", 6379) as proxy:
            client = connect(proxy.port)
            proxy.drop_reply()
            client.push("work")    # arrives, but the client cannot know
            proxy.heal()

    Args:
        upstream_host: Where the server is; without one, what clients send is swallowed.

        upstream_port: 1 to 65535.

        host: The address to listen on.

        port: The port to listen on; 0 for one that is free.
    """

    def __init__(
        self,
        upstream_host: str | None = None,
        upstream_port: int | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if (upstream_host is None) is not (upstream_port is None):
            raise ValueError("an upstream server has a host and a port: pass both or neither")
        self._upstream = _place(upstream_host, upstream_port)
        self._asked = (host, port)
        self._rule = HEALTHY
        self._counts = Counts()
        self._links: set[Link] = set()
        self._commands: SimpleQueue[tuple[Rule | None, threading.Event]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    # What a test asks.

    @property
    def port(self) -> int:
        """The port clients connect to; it stays the same in every mode."""
        return self.address[1]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that clients connect to."""
        if not hasattr(self, "_port"):
            raise RuntimeError("the proxy has no port yet: use it as a context manager")
        return self._port.address

    @property
    def mode(self) -> str:
        """The name of the mode, as its method is called; `pass` while healthy."""
        return self._rule.mode

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._counts.connections

    @property
    def open_connections(self) -> int:
        """Connections that are open now, on the client's side."""
        return sum(not link.closed for link in tuple(self._links))

    @property
    def request_bytes(self) -> int:
        """Bytes forwarded from clients to the server."""
        return self._counts.request

    @property
    def reply_bytes(self) -> int:
        """Bytes forwarded from the server to clients."""
        return self._counts.reply

    # What a test orders.

    def heal(self) -> None:
        """Forward again. A connection of which bytes were swallowed is beyond help: it is reset."""
        self._apply(HEALTHY)

    def refuse(self) -> None:
        """Nothing listens: new connections are refused, existing ones reset."""
        self._apply(Rule("refuse", listening="refuse", connection="reset"))

    def black_hole(self, *, accept: bool = True) -> None:
        """Swallow everything both ways and answer nothing.

        Args:
            accept: False does not even accept connections, like a host behind a firewall that
                drops packets: `connect` hangs.
        """
        listening: Literal["accept", "ignore"] = "accept" if accept else "ignore"
        self._apply(Rule("black_hole", listening=listening, connection="swallow"))

    def reset(self) -> None:
        """Reset every connection, new ones as soon as they are accepted."""
        self._apply(Rule("reset", connection="reset"))

    def restart(self) -> None:
        """End every connection in order, as a server that restarts does, and forward new ones."""
        self._apply(Rule("restart", connection="close"))
        self.heal()

    def cut(
        self,
        *,
        after: int,
        direction: Direction = "reply",
        how: Literal["reset", "close"] = "reset",
    ) -> None:
        """Let bytes of one direction through, and cut the connection in place of the next byte.

        Args:
            after: Bytes that pass on each connection, counted from now.

            direction: `request` counts what the client sends, `reply` what it receives.

            how: What the client sees: a reset or an orderly end. The server sees an orderly end.
        """
        self._apply(Rule("cut", direction=direction, after=after, then=how))

    def drop_reply(self, *, how: Literal["reset", "close"] = "reset") -> None:
        """Forward requests, and cut the connection in place of the reply: done, but who knows."""
        self._apply(Rule("drop_reply", direction="reply", after=0, then=how))

    def delay(self, seconds: float, *, direction: Direction = "reply") -> None:
        """Forward each byte of one direction so many seconds later."""
        self._apply(Rule("delay", direction=direction, delay=seconds))

    def slow_drip(self, bytes_per_second: float, *, direction: Direction = "reply") -> None:
        """Forward one direction at so many bytes per second."""
        self._apply(Rule("slow_drip", direction=direction, rate=bytes_per_second))

    def stall(self, *, after: int | None = None, direction: Direction = "reply") -> None:
        """Stop forwarding both ways, and keep the connections open; `heal` continues them.

        Args:
            after: Bytes of `direction` that still pass on each connection, before everything
                stops in place of the next; None stops now.

            direction: As in `cut`.
        """
        hold: Literal["forward", "hold"] = "hold" if after is None else "forward"
        self._apply(Rule("stall", connection=hold, direction=direction, after=after))

    # How it lives.

    def __enter__(self) -> Self:
        self._rule = HEALTHY
        self._port = Port(*self._asked)
        # A socket, since `select` takes nothing else on Windows.
        self._waker, self._wakened = socket.socketpair()
        self._wakened.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakened, selectors.EVENT_READ, self._obey)
        self._open(self._rule)
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and the port, and end the thread. Closing twice is harmless."""
        # Taken first, so that a second call finds nothing to close.
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._order(None)
        thread.join(APPLY_SECONDS)
        self._waker.close()

    def _apply(self, rule: Rule) -> None:
        if self._thread is None:
            raise RuntimeError("the proxy does not run: use it as a context manager")
        if not self._order(rule).wait(APPLY_SECONDS):
            raise RuntimeError(f"the proxy's thread did not take up {rule.mode!r}")

    def _order(self, rule: Rule | None) -> threading.Event:
        done = threading.Event()
        self._commands.put((rule, done))
        # After the command is in the queue: the thread takes one command for each byte.
        self._waker.send(b"!")
        return done

    # What its thread does.

    def _run(self) -> None:
        self._running = True
        try:
            while self._running:
                for key, mask in self._selector.select(self._pause()):
                    key.data(mask, monotonic())
                self._pump(monotonic())
        finally:
            for link in self._links:
                link.end("close")
            self._links = set()
            self._port.close()
            self._selector.close()
            self._wakened.close()

    def _pause(self) -> float | None:
        times = [due for link in self._links if (due := link.due()) is not None]
        return max(0.0, min(times) - monotonic()) if times else None

    def _pump(self, now: float) -> None:
        for link in self._links:
            if (due := link.due()) is not None and due <= now:
                link.pump(now)
        self._links = {link for link in self._links if not link.closed}

    def _obey(self, _mask: int, now: float) -> None:
        self._wakened.recv(1)  # one byte, one command
        rule, done = self._commands.get()
        if rule is None:
            self._running = False
            return
        # The port may get another socket by the new rule.
        if self._port.sock in self._selector.get_map():
            self._selector.unregister(self._port.sock)
        self._rule = rule
        for link in self._links:
            link.obey(rule, now)
        self._open(rule)
        self._pump(now)
        # Last: the caller goes on once the new rule holds for every connection.
        done.set()

    def _open(self, rule: Rule) -> None:
        """Treat new connections by the rule."""
        if rule.listening == "refuse":
            self._port.refuse()
        elif rule.listening == "ignore":
            self._port.ignore()
        else:
            self._port.listen()
            self._selector.register(self._port.sock, selectors.EVENT_READ, self._accept)
            # Clients that were let wait by the rule before are there already.
            self._accept(0, monotonic())

    def _accept(self, _mask: int, now: float) -> None:
        for client in self._port.accept():
            self._counts.connections += 1
            link = Link(client, self._upstream, self._selector, self._counts)
            self._links.add(link)
            link.obey(self._rule, now)


def _place(host: str | None, port: int | None) -> tuple[socket.AddressFamily, Any] | None:
    if host is None:
        return None
    # Once, here: the proxy's thread must not wait for name resolution.
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, place
