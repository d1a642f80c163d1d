"""Name resolution and connecting within a bound, for adapters (C2).

A name server that never answers defeats every synchronous client's own timeout: `getaddrinfo`
knows none. An adapter that connects through `connect`, or checks with `probe` before its client
connects, or lets its client connect within `bounded`, is bounded all the same, and pays nothing
per send on an established connection.

::

    TimeoutError
     +-- ConnectTimeoutError       no connection in time: certainly nothing was handed over
          +-- ResolveTimeoutError  not even an address
    OSError                        ConnectionRefusedError, socket.gaierror, ... as they are
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from time import monotonic
from typing import TypeVar

from dispatchers._runtime.guard import Guard, GuardFullError, GuardTimeoutError, Late
from dispatchers._runtime.resolver import (
    Address,
    ConnectTimeoutError,
    Resolver,
    ResolveTimeoutError,
)

__all__ = [
    "Address",
    "ConnectTimeoutError",
    "ResolveTimeoutError",
    "Resolver",
    "bounded",
    "connect",
    "probe",
    "resolve",
]

T = TypeVar("T")


STAGGER_SECONDS = 0.25
"""RFC 8305, section 5: the next address is tried when the last has not answered for so long."""


LONGEST_SECONDS = 86400.0
"""Longer than any deadline; what the system takes as a timeout has a limit."""


# A non-blocking connect that has begun: Linux and macOS say the first, Windows the second.
UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK})


class _Race:
    """Connects to the first of several addresses that answers; the others are closed."""

    def __init__(self, addresses: Iterable[Address], name: str) -> None:
        self.waiting = deque(_alternating(addresses))
        self.name = name
        self.selector = selectors.DefaultSelector()
        self.errors: list[OSError] = []
        self.next_start = 0.0

    def run(self, until: float) -> socket.socket | None:
        """The winner, in non-blocking mode; None when the time is over.

        Raises:
            OSError: No address accepts a connection.
        """
        try:
            while (winner := self._step(until)) is None:
                if monotonic() >= until:
                    return None
            return winner
        finally:
            self._close()

    def _step(self, until: float) -> socket.socket | None:
        """Begin the next address if it is time, else wait for an answer."""
        under_way = bool(self.selector.get_map())
        if self.waiting and (not under_way or monotonic() >= self.next_start):
            return self._begin(*self.waiting.popleft())
        if not under_way:
            raise self._error()
        pause = min(until, self.next_start) if self.waiting else until
        for key, _ in self.selector.select(max(0.0, pause - monotonic())):
            # The first winner ends the race; the other sockets are closed by `run`.
            if winner := self._end(key.data):
                return winner
        return None

    def _begin(
        self, family: int, kind: int, protocol: int, _name: str, place: object
    ) -> socket.socket | None:
        self.next_start = monotonic() + STAGGER_SECONDS
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as exc:  # a family that this machine lacks, or no descriptor left
            self._failed(exc)
            return None
        try:
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_WRITE, data=sock)
            code = sock.connect_ex(place)  # type: ignore[arg-type] # what getaddrinfo gave
        except BaseException:
            sock.close()
            raise
        return None if code in UNDER_WAY else self._end(sock, code)

    def _end(self, sock: socket.socket, code: int | None = None) -> socket.socket | None:
        """The socket, if it is connected; else it is closed and its error kept."""
        # A socket becomes writable on failure, too: only SO_ERROR tells the two apart.
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if code is None else code
        self.selector.unregister(sock)
        # TCP's simultaneous open lets a socket connect to its own port: no server listens there.
        if not code and _is_connected_to_itself(sock):
            code = errno.ECONNREFUSED
        if not code:
            return sock
        sock.close()
        self._failed(OSError(code, f"{os.strerror(code)}: {self.name}"))
        return None

    def _failed(self, error: OSError) -> None:
        # A failure ends the stagger at once: RFC 8305 delays only behind an address under way.
        self.errors.append(error)
        self.next_start = 0.0

    def _error(self) -> OSError:
        # The first address is the system's preferred one, so its error says most.
        first, *others = self.errors or [OSError(errno.EADDRNOTAVAIL, f"no address: {self.name}")]
        for other in others:
            first.add_note(f"and another address: {other}")
        return first

    def _close(self) -> None:
        # A copy, because closing a socket may change the map that is walked through.
        for key in tuple(self.selector.get_map().values()):
            key.data.close()
        self.selector.close()


def _alternating(addresses: Iterable[Address]) -> list[Address]:
    """The families in turn, in the system's order within each (RFC 8305, section 4)."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [a for a in chain.from_iterable(zip_longest(*families.values())) if a is not None]


def _is_connected_to_itself(sock: socket.socket) -> bool:
    """On the loopback, a port without a listener can be the one the socket itself was given."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # gone again already; its user will see
        return False


_resolver = Resolver()


MAX_GUARDS = 64
"""Servers whose connecting is told apart; beyond them, those that hang for none are forgotten."""


class Guards:
    """A guard for each server, so that one that hangs does not refuse the others' connects.

    Args:
        cap: Connects to one server that may hang at once.
    """

    def __init__(self, cap: int = 8) -> None:
        self._cap = cap
        self._by_server: dict[str, Guard] = {}

    def of(self, server: str) -> Guard:
        """Return the guard of a server; two threads that come first may each make one."""
        # No lock: a guard that two threads make at once costs a moment, and `setdefault` keeps one.
        found = self._by_server.get(server)
        if found is None:
            if len(self._by_server) >= MAX_GUARDS:
                # Replaced, not cleared: other threads may be reading the old mapping.
                busy = {name: g for name, g in self._by_server.items() if g.abandoned}
                self._by_server = busy
            found = Guard(f"dispatchers-connect {server}", cap=self._cap)
            found = self._by_server.setdefault(server, found)
        return found

    def close(self, timeout: float) -> int:
        """Close every guard; return how many connects were left."""
        return sum(guard.close(timeout) for guard in self._by_server.values())


_guards = Guards()


def resolve(host: str, port: int, *, timeout: float) -> list[Address]:
    """The addresses of a host within `timeout` seconds, see `Resolver.resolve`.

    Raises:
        ResolveTimeoutError: No answer in time, or too many names hang already.
        socket.gaierror: The system has no address for it.
        ValueError: The host is empty or the port out of range.
    """
    return _resolver.resolve(host, port, timeout=timeout)


def connect(host: str, port: int, *, timeout: float) -> socket.socket:
    """A TCP connection within `timeout` seconds, name resolution included.

    The addresses are tried as RFC 8305 says: IPv6 and IPv4 in turn, the next one when the last
    has failed or has not answered for 0.25 s, so that one that does not answer costs little.

    Args:
        host: A name, or an IPv4 or IPv6 address.

        port: 1 to 65535.

        timeout: Seconds. It is also set on the socket, for whatever the caller does with it.

    Returns:
        The socket, owned by the caller.

    Raises:
        ConnectTimeoutError: No address answered in time.
        ResolveTimeoutError: Not even the name was resolved in time.
        socket.gaierror: There is no such name.
        OSError: Every address failed: the first one's error, with the others as notes.
        ValueError: The host is empty or the port out of range.
    """
    # An infinite or huge timeout overflows in the system calls below.
    timeout = min(timeout, LONGEST_SECONDS)
    until = monotonic() + timeout
    race = _Race(resolve(host, port, timeout=timeout), f"{host}:{port}")
    sock = race.run(until)
    if sock is None:
        raise ConnectTimeoutError(f"{host}:{port} accepted no connection within {timeout:g} s")
    sock.settimeout(timeout)
    return sock


def probe(host: str, port: int, *, timeout: float) -> None:
    """Connect and close again: whether a server listens there. Raises like `connect`."""
    connect(host, port, timeout=timeout).close()


def bounded(
    connecting: Callable[[], T],
    *,
    timeout: float,
    discard: Callable[[T], object] | None = None,
    to: str | None = None,
) -> T:
    """Run a client's own connecting on a helper thread, and wait at most `timeout` seconds.

    Args:
        connecting: Connects and returns the connection. It must hand nothing over.

        timeout: Seconds.

        discard: Closes a connection that came too late to be used.

        to: The server, such as `host:port`: connects that hang are counted for each server. None
            takes the function that connects, with the object that a method is bound to. A
            dispatcher's own `_bounded` counts for that dispatcher.

    Raises:
        ConnectTimeoutError: No connection in time, or too many earlier ones to this server hang.
    """
    guard = _guards.of(to or _place_of(connecting))

    def late(outcome: Late[T]) -> None:
        if discard is not None and outcome.error is None:
            discard(outcome.value)  # type: ignore[arg-type] # without an error there is a value

    try:
        return guard.call(connecting, timeout=timeout, on_late=late)
    except GuardTimeoutError as exc:
        raise ConnectTimeoutError(f"no connection within {timeout:g} s") from exc
    except GuardFullError as exc:
        raise ConnectTimeoutError(f"no connection was tried: {exc}") from exc


def _place_of(function: Callable[[], object]) -> str:
    inner = getattr(function, "func", function)  # of a partial
    place = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', '')}"
    # An object whose connect hangs stays alive, so that no other one gets its id meanwhile.
    owner = getattr(inner, "__self__", None)
    return place if owner is None else f"{place} of {id(owner):x}"
